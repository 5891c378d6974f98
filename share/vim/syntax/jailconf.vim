" Vim syntax file
" Language:	jail.conf(5), the jails of jailng and of FreeBSD
" Remark:	What is shown as an error is no parameter. The names come from the table of parameters, where this
"		file is installed (share/generate); as it lies in the sources there are none in it.

if exists('b:current_syntax')
  finish
endif
let s:cpo_save = &cpo
set cpo&vim

syn case match
syn iskeyword @,48-57,_,.

" A statement begins with a name. What follows a sign up to the semicolon is its value, and nothing in it is a name.
syn match jailconfName /[A-Za-z0-9_.!%&()\-:<>?@\[\]^`|~]\+\ze\_s*\(+\?=\|;\)/
      \ contains=jailconfParameter,jailconfNegated,jailconfKey nextgroup=jailconfValue skipwhite skipempty
syn match jailconfKey /\<\(meta\|env\)\.[A-Za-z0-9_.\-]\+/ contained
syn region jailconfValue matchgroup=jailconfSign start=/+\?=/ end=/;/ contained
      \ contains=jailconfString,jailconfRaw,jailconfVariable,jailconfEscape,jailconfComment,jailconfWord,jailconfNumber
syn match jailconfDefinition /\$\(\h\w*\|{[^{}]*}\)\ze\_s*\(+\?=\|;\)/ nextgroup=jailconfValue skipwhite skipempty
syn match jailconfBlock /[A-Za-z0-9_.!%&()*\-:<>?@\[\]^`|~]\+\ze\_s*{/
syn match jailconfBlock /"[^"]*"\ze\_s*{/
syn region jailconfInclude matchgroup=jailconfDirective start=/\.include\>/ end=/;/
      \ contains=jailconfString,jailconfRaw,jailconfComment
syn region jailconfBraces start=/{/ end=/}/ transparent fold

" Strings. Between single quotes there are no variables, but escapes.
syn region jailconfString start=/"/ skip=/\\./ end=/"/ contained contains=jailconfVariable,jailconfEscape
syn region jailconfRaw start=/'/ skip=/\\./ end=/'/ contained contains=jailconfEscape
syn match jailconfVariable /\$\(\h\w*\|{[^{}]*}\)/ contained
syn match jailconfEscape /\\\(\o\{1,3}\|x\x\{1,2}\|.\|$\)/ contained
syn keyword jailconfWord contained true false new inherit disable
syn match jailconfNumber /\<\d[0-9a-fA-F.:]*\(\/\d\+\)\?\>/ contained

" Comments begin anywhere outside of quotation marks, also within a word.
syn region jailconfComment start=/#/ end=/$/ contains=jailconfTodo,@Spell oneline
syn region jailconfComment start=+//+ end=/$/ contains=jailconfTodo,@Spell oneline
syn region jailconfComment start=+/\*+ end=+\*/+ contains=jailconfTodo,@Spell fold
syn keyword jailconfTodo contained TODO FIXME XXX

" share/generate: jailconfParameter parameters
" share/generate: jailconfNegated booleans

hi def link jailconfName Error
hi def link jailconfParameter Identifier
hi def link jailconfNegated Identifier
hi def link jailconfKey Identifier
hi def link jailconfDefinition PreProc
hi def link jailconfVariable PreProc
hi def link jailconfBlock Function
hi def link jailconfDirective Include
hi def link jailconfSign Operator
hi def link jailconfString String
hi def link jailconfRaw String
hi def link jailconfEscape SpecialChar
hi def link jailconfWord Constant
hi def link jailconfNumber Number
hi def link jailconfComment Comment
hi def link jailconfTodo Todo

let b:current_syntax = 'jailconf'
let &cpo = s:cpo_save
unlet s:cpo_save
