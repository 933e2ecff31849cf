import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What the two clients of Java are told to do; see driver.py. CLIENT_KIND is http or url. */
class UseJava {
    static final String BASE = System.getenv("CLIENT_BASE");
    static final String TOKEN = "OAuth " + System.getenv("CLIENT_TOKEN");
    static final String COUNTER = "/management/v1/counter/101";
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    /** The name of this exception is the status. */
    static class Status extends Exception {
        final int status;

        Status(int status, String text) {
            super(text);
            this.status = status;
        }
    }

    static String ask(String method, String target, String type, byte[] body) throws Exception {
        return System.getenv("CLIENT_KIND").equals("http") ? askHttp(method, target, type, body) : askUrl(method, target, type, body);
    }

    static String askHttp(String method, String target, String type, byte[] body) throws Exception {
        HttpRequest.BodyPublisher publisher =
            body == null ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofByteArray(body);
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(BASE + target)).timeout(Duration.ofSeconds(150));
        request.header("Authorization", TOKEN).method(method, publisher);
        if (type != null) request.header("Content-Type", type);
        HttpResponse<String> response = CLIENT.send(request.build(), HttpResponse.BodyHandlers.ofString());
        // It has no exception for a status.
        if (response.statusCode() >= 400) throw new Status(response.statusCode(), response.body());
        return response.body();
    }

    static String askUrl(String method, String target, String type, byte[] body) throws Exception {
        HttpURLConnection connection = (HttpURLConnection) URI.create(BASE + target).toURL().openConnection();
        connection.setReadTimeout(150_000);
        connection.setRequestMethod(method);
        connection.setRequestProperty("Authorization", TOKEN);
        if (type != null) connection.setRequestProperty("Content-Type", type);
        if (body != null) {
            connection.setDoOutput(true);
            connection.getOutputStream().write(body);
        }
        return new String(connection.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    }

    static String number(String text, String name) {
        Matcher found = Pattern.compile("\"" + name + "\":(\\d+)").matcher(text);
        StringBuilder all = new StringBuilder();
        while (found.find()) all.append(found.group(1)).append(' ');
        return all.toString().trim();
    }

    static String run(String action) throws Exception {
        switch (action) {
            case "read":
                return number(ask("GET", "/management/v1/counters", null, null), "id");
            case "write": {
                String goal = "{\"goal\": " + Files.readString(Path.of("goal.json")) + "}";
                return number(ask("POST", COUNTER + "/goals", "application/json", goal.getBytes(StandardCharsets.UTF_8)), "id");
            }
            case "upload": {
                String head = "--BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"; filename=\"upload.csv\"\r\n\r\n";
                String form = head + Files.readString(Path.of("upload.csv")) + "\r\n--BOUNDARY--\r\n";
                String target = COUNTER + "/offline_conversions/upload?client_id_type=CLIENT_ID";
                byte[] body = form.getBytes(StandardCharsets.UTF_8);
                return number(ask("POST", target, "multipart/form-data; boundary=BOUNDARY", body), "id");
            }
            case "logs": {
                String query = "?date1=2026-11-01&date2=2026-11-02&fields=ym:s:visitID,ym:s:date&source=visits";
                String one = COUNTER + "/logrequest/" + number(ask("POST", COUNTER + "/logrequests" + query, null, null), "request_id");
                if (!ask("GET", one, null, null).contains("\"status\":\"processed\"")) throw new Exception("not processed");
                String table = ask("GET", one + "/part/0/download", null, null);
                ask("POST", one + "/clean", null, null);
                return String.valueOf(table.lines().count() - 1);
            }
            default:
                return ask("GET", "/management/v1/nothing", null, null);
        }
    }

    public static void main(String[] arguments) {
        for (String action : System.getenv("CLIENT_ACTIONS").split(" ")) {
            try {
                System.out.println(action + "\tok\t" + run(action));
            } catch (Exception error) {
                String name = error instanceof Status ? "status " + ((Status) error).status : error.getClass().getSimpleName();
                System.out.println(action + "\terror\t" + name + "\t" + String.valueOf(error.getMessage()).replaceAll("\\s+", " "));
            }
        }
    }
}
