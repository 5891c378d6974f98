# What the shims of a jail have in common: read by each of them. $0 is the shim.

name=${0##*/}

# real ARGUMENT...: become Debian's own program of that name, if there is one.
real()
{
	local directory
	local IFS=:
	for directory in $PATH /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do
		case $directory in '' | /usr/lib/jailng/shims) continue ;; esac
		if [ -x "$directory/$name" ] && ! [ "$directory/$name" -ef "$0" ]; then
			unset IFS
			exec "$directory/$name" "$@"
		fi
	done
	fail "not installed" 127
}

fail()
{
	echo "$name: $1" >&2
	exit "${2:-1}"
}

# The IPv4 address that a socket without one has on FreeBSD: the jail's, where it has only one.
only_address()
{
	/sbin/ip -o "-$1" address show scope "${2:-global}" 2>/dev/null |
		awk '{ sub(/\/.*/, "", $4); found = $4 } END { if (NR == 1) print found }'
}

# Sockets of the jail's network, as /proc/net has them, a line each:
# protocol version local-address local-port foreign-address foreign-port state receive send inode uid
# The version of what both come to is 46.
inet_sockets()
{
	# The directory is the network that this process is in, which is the jail's.
	for table in tcp tcp6 udp udp6; do
		[ -r /proc/net/$table ] && sed "1d; s/^/$table /" /proc/net/$table
	done | awk -v own4="$(only_address 4)" -v own6="$(only_address 6)" '
	function hex(text,    at, number) {
		number = 0
		for (at = 1; at <= length(text); at++)
			number = number * 16 + index("0123456789ABCDEF", substr(text, at, 1)) - 1
		return number
	}
	function dotted(text) {
		return hex(substr(text, 7, 2)) "." hex(substr(text, 5, 2)) "." hex(substr(text, 3, 2)) "." hex(substr(text, 1, 2))
	}
	# RFC 5952: the longest run of zeros, of two at least, becomes "::".
	function colons(text,    at, word, words, run, start, best, from, out) {
		for (at = 0; at < 4; at++) {
			word = substr(text, at * 8 + 1, 8)
			words[at * 2] = substr(word, 7, 2) substr(word, 5, 2)
			words[at * 2 + 1] = substr(word, 3, 2) substr(word, 1, 2)
		}
		run = 0; best = 1; from = -1
		for (at = 0; at < 8; at++) {
			if (words[at] == "0000") {
				if (!run) start = at
				if (++run > best) { best = run; from = start }
			} else
				run = 0
		}
		out = ""
		for (at = 0; at < 8; at++) {
			if (at == from) { out = out "::"; at += best - 1; continue }
			word = tolower(words[at]); sub(/^0+/, "", word); if (word == "") word = "0"
			out = out (out == "" || out ~ /:$/ ? "" : ":") word
		}
		return out
	}
	function address(text, local) {
		if (text ~ /^0+$/) {
			if (!local) return "*"
			return length(text) == 8 ? (own4 == "" ? "*" : own4) : (own6 == "" ? "*" : own6)
		}
		if (length(text) == 8) return dotted(text)
		if (substr(text, 1, 24) == "0000000000000000FFFF0000") { version = 4; return dotted(substr(text, 25)) }
		return colons(text)
	}
	BEGIN {
		split("ESTABLISHED SYN_SENT SYN_RCVD FIN_WAIT_1 FIN_WAIT_2 TIME_WAIT CLOSED CLOSE_WAIT LAST_ACK LISTEN CLOSING", states, " ")
	}
	{
		version = $1 ~ /6$/ ? 6 : 4
		protocol = substr($1, 1, 3)
		split($3, here, ":"); split($4, there, ":"); split($6, queue, ":")
		local_address = address(here[1], 1)
		foreign_address = address(there[1], 0)
		local_port = hex(here[2]); foreign_port = hex(there[2])
		state = protocol == "tcp" ? states[hex($5)] : "-"
		if (state == "") state = "CLOSED"
		# A server on :: has IPv4 too, unless it said otherwise: the kernel does not tell, but then IPv4 has its own.
		if ($3 ~ /^0+:/ && foreign_port == 0) {
			if (version == 4)
				own[protocol, local_port]
			else if (!((protocol, local_port) in own)) {
				version = 46
				local_address = "*"
			}
		}
		# A listener has in this place how many it holds at most.
		waiting = state == "LISTEN" ? 0 : hex(queue[2])
		print protocol, version, local_address, local_port ? local_port : "*", foreign_address,
			foreign_port ? foreign_port : "*", state, waiting, hex(queue[1]), $11, $9
	}'
}
