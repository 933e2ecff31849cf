# wget reads no variable for certificates.
ask() {
    url=$CLIENT_BASE$2${3:+?$3} method=$1
    case $4 in
    goal.json) set -- --header 'Content-Type: application/json' "--body-data={\"goal\": $(cat goal.json)}" ;;
    *) set -- ;;
    esac
    wget -q -O- --content-on-error --tries=1 ${CA:+"--ca-certificate=$CA"} --method="$method" --header "Authorization: OAuth $CLIENT_TOKEN" "$@" "$url"
}
. ./driver.sh
