ask() {
    url=$CLIENT_BASE$2${3:+?$3} method=$1
    case $4 in
    goal.json) set -- --json "{\"goal\": $(cat goal.json)}" ;;
    upload.csv) set -- -F file=@upload.csv ;;
    *) set -- ;;
    esac
    case $CLIENT_BASE in
    unix:*) url=http://localhost${url#"$CLIENT_BASE"} && set -- "$@" --unix-socket "${CLIENT_BASE#unix:}" ;;
    h2c:*) url=http://${url#h2c:} && set -- "$@" --http2-prior-knowledge ;;
    esac
    curl -sS --fail-with-body -X "$method" -H "Authorization: OAuth $CLIENT_TOKEN" "$@" "$url"
}
. ./driver.sh
