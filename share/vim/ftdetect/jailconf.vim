" jail.conf(5). fail2ban has a file of that name too, which is something else.
autocmd BufNewFile,BufRead jail.conf,jail.*.conf if expand('<afile>:p') !~# 'fail2ban' | setlocal filetype=jailconf | endif
autocmd BufNewFile,BufRead */jail.conf.d/*.conf setlocal filetype=jailconf
