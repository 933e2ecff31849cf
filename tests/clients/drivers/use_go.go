package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// What the client is told to do; see driver.py.
const counter = "/management/v1/counter/101"

var base, client = os.Getenv("CLIENT_BASE"), http.Client{Timeout: 150 * time.Second}

func ask(method, path string, query url.Values, kind string, body io.Reader) string {
	target := base + path
	if query != nil {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequest(method, target, body)
	fail(err)
	request.Header.Set("Authorization", "OAuth "+os.Getenv("CLIENT_TOKEN"))
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := client.Do(request)
	fail(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	fail(err)
	// It has no error for a status.
	if response.StatusCode >= 400 {
		panic(fmt.Errorf("status %d\t%s", response.StatusCode, text))
	}
	return string(text)
}

func fail(err error) {
	if err != nil {
		panic(fmt.Errorf("%T\t%w", err, err))
	}
}

func number(text, name string) string {
	_, text, _ = strings.Cut(text, `"`+name+`":`)
	return text[:strings.IndexAny(text, ",}")]
}

func read() string {
	var counters struct {
		Counters []struct{ Id int }
	}
	fail(json.Unmarshal([]byte(ask("GET", "/management/v1/counters", nil, "", nil)), &counters))
	return fmt.Sprint(counters.Counters)
}

func write() string {
	goal, err := os.ReadFile("goal.json")
	fail(err)
	body := strings.NewReader(`{"goal": ` + string(goal) + `}`)
	return number(ask("POST", counter+"/goals", nil, "application/json", body), "id")
}

func upload() string {
	file, err := os.Open("upload.csv")
	fail(err)
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", "upload.csv")
	fail(err)
	_, err = io.Copy(part, file)
	fail(err)
	fail(form.Close())
	query := url.Values{"client_id_type": {"CLIENT_ID"}}
	return number(ask("POST", counter+"/offline_conversions/upload", query, form.FormDataContentType(), &body), "id")
}

func logs() string {
	query := url.Values{
		"date1": {"2026-11-01"}, "date2": {"2026-11-02"}, "fields": {"ym:s:visitID,ym:s:date"}, "source": {"visits"},
	}
	one := counter + "/logrequest/" + number(ask("POST", counter+"/logrequests", query, "", nil), "request_id")
	if state := ask("GET", one, nil, "", nil); !strings.Contains(state, `"status":"processed"`) {
		panic(fmt.Errorf("state\t%s", state))
	}
	table := ask("GET", one+"/part/0/download", nil, "", nil)
	ask("POST", one+"/clean", nil, "", nil)
	return fmt.Sprint(strings.Count(table, "\n") - 1)
}

func missing() string { return ask("GET", "/management/v1/nothing", nil, "", nil) }

func run(name string, action func() string) {
	defer func() {
		if err := recover(); err != nil {
			fmt.Printf("%s\terror\t%s\n", name, strings.ReplaceAll(fmt.Sprint(err), "\n", " "))
		}
	}()
	fmt.Printf("%s\tok\t%s\n", name, action())
}

func main() {
	if path := strings.TrimPrefix(base, "unix:"); path != base {
		base = "http://localhost"
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		client.Transport = &http.Transport{DialContext: dial}
	}
	actions := map[string]func() string{"read": read, "write": write, "upload": upload, "logs": logs, "missing": missing}
	for _, name := range strings.Fields(os.Getenv("CLIENT_ACTIONS")) {
		run(name, actions[name])
	}
}
