ask() {
    url=$CLIENT_BASE$2${3:+?$3} method=$1
    case $4 in
    goal.json) set -- "goal:=$(cat goal.json)" ;;
    upload.csv) set -- --form file@upload.csv ;;
    *) set -- ;;
    esac
    form=
    [ "$1" != --form ] || { form=--form && shift; }
    http --check-status --ignore-stdin --body $form "$method" "$url" "Authorization:OAuth $CLIENT_TOKEN" "$@"
}
. ./driver.sh
