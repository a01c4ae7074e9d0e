# To be sourced. A training run that goes on where it stopped: the same command is right the first time and every other.

# train_or_resume DISTRIBUTED ARGUMENTS...: `jaxalign train ARGUMENTS`, or `jaxalign resume` if the run exists.
# ARGUMENTS must contain --name NAME, and may contain --out FOLDER.
train_or_resume() {
    local distributed=$1 name="" out=runs previous=""
    shift
    for word in "$@"; do
        case $previous in
        --name) name=$word ;;
        --out) out=$word ;;
        esac
        previous=$word
    done
    if [ -z "$name" ]; then
        echo "restart.sh: give --name NAME, so that the run is found again" >&2
        return 2
    fi
    if [ -e "$out/$name/config.json" ]; then
        jaxalign resume "$out/$name" --distributed "$distributed"
    else
        jaxalign train "$@" --distributed "$distributed"
    fi
}

# until_done COMMAND...: runs it again while it was stopped from outside (130: saved; 134, 137, 143: killed), up to 20 times.
until_done() {
    local status tries
    for tries in $(seq 20); do
        status=0
        "$@" || status=$?
        case $status in
        130 | 134 | 137 | 143) echo "restart.sh: status $status, attempt $tries" >&2 ;;
        *) return "$status" ;;
        esac
        sleep 10
    done
    return "$status"
}
