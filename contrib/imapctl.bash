# Completion of imapctl(8) for bash: subcommands, their options, who is on, and
# services of msg/shutdown.SERVICE.

_imapctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local -a imapctl=("${COMP_WORDS[0]}") words
	local i word command= arguments=0

	# The options before the subcommand decide whom to ask.
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ -n $command ]]; then
			[[ $word == -* ]] || ((arguments++))
		elif [[ $word == -[CS] ]]; then
			((i + 1 < COMP_CWORD)) && imapctl+=("$word" "${COMP_WORDS[i + 1]}")
			((i++))
		elif [[ $word == -[CS]* ]]; then
			imapctl+=("$word")
		elif [[ $word != -* ]]; then
			command=$word
		fi
	done

	COMPREPLY=()
	if [[ -z $command ]]; then
		case $prev in
		-C) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
		-S) mapfile -t words < <({ echo imap; "${imapctl[@]}" who 2>/dev/null | awk '$2 != "-" { print $2 }'; } | sort -u) ;;
		*) words=(-C -S check drain help kick motd reload session shutdown telemetry version who) ;;
		esac
	elif [[ $cur == -* ]]; then
		case $command in
		who) words=(--json) ;;
		kick) words=(--user) ;;
		motd | shutdown) words=(--off) ;;
		telemetry) words=(--delete) ;;
		esac
	else
		case $command:$arguments in
		check:0) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
		kick:0) mapfile -t words < <("${imapctl[@]}" who 2>/dev/null | awk '{ print $1; if ($4 != "-") print $4 }' | sort -u) ;;
		session:0 | telemetry:0) mapfile -t words < <("${imapctl[@]}" who 2>/dev/null | awk '$4 != "-" { print $4 }' | sort -u) ;;
		telemetry:1) words=(on off tail) ;;
		esac
	fi
	for word in "${words[@]}"; do
		# A user's name may hold what the shell would act upon.
		[[ $word != "$cur"* ]] || COMPREPLY+=("$(printf %q "$word")")
	done
}

complete -F _imapctl imapctl
