//! The pages that a person sees.

use metrica::scope::ScopeSet;

use super::super::answer::Answer;
use super::super::query::Query;
use super::authority::{Account, Application, Authority};

fn page(title: &str, body: &str) -> Answer {
    Answer::html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\
         <body><h1>{title}</h1>{body}</body></html>\n"
    ))
}

/// A text without markup.
fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A text as part of a query.
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The error of a page.
pub fn failed(name: &str, description: &str) -> Answer {
    page("Error", &format!("<p id=\"error\">{}: {}</p>", plain(name), plain(description))).with_status(400)
}

fn accounts(all: &[Account], hint: Option<&str>) -> String {
    let one = |(position, account): (usize, &Account)| {
        let login = plain(&account.login);
        let is_first = hint.map_or(position == 0, |hint| hint == account.login);
        let checked = if is_first { " checked" } else { "" };
        format!("<p><label><input type=\"radio\" name=\"login\" value=\"{login}\"{checked}> {login}</label></p>")
    };
    all.iter().enumerate().map(one).collect()
}

const BUTTONS: &str = "<button id=\"allow\" name=\"decision\" value=\"allow\">Allow</button> \
                       <button id=\"deny\" name=\"decision\" value=\"deny\">Deny</button>";

/// The page on which a person chooses an account and allows an application access.
pub fn authorize(authority: &Authority, application: &Application, scopes: ScopeSet, query: &Query) -> Answer {
    let field = |name: &str| {
        let value = query.get(name).filter(|_| name != "login" && name != "decision")?;
        Some(format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", plain(name), plain(value)))
    };
    let fields: String = query.names().filter_map(field).collect();
    let (id, rights) = (plain(&application.client_id), plain(&scopes.to_string()));
    let accounts = accounts(&authority.accounts, query.get("login_hint"));
    let form = format!("<form method=\"post\" action=\"/authorize\">{fields}{accounts}{BUTTONS}</form>");
    page("Allow access", &format!("<p>The application {id} asks for: {rights}</p>{form}"))
}

/// The page on which the code of a device is entered.
pub fn device(authority: &Authority) -> Answer {
    let accounts = accounts(&authority.accounts, None);
    page(
        "Connect a device",
        &format!(
            "<form method=\"post\" action=\"/device\"><p><label>Code <input name=\"user_code\"></label></p>\
             {accounts}{BUTTONS}</form>"
        ),
    )
}

/// The page after the decision about a device.
pub fn done() -> Answer {
    page("Done", "<p>Return to your device.</p>")
}

/// The page that shows a code, or leaves a token in its address.
pub fn code(query: &Query) -> Answer {
    match query.get("code") {
        Some(code) => page("Code", &format!("<p>Enter this code: <b id=\"code\">{}</b></p>", plain(code))),
        None => page("Token", "<p>The token is in the address of this page.</p>"),
    }
}

/// The page that lists the rights of an application.
pub fn application(application: &Application) -> Answer {
    let business = if application.business { " passport:business" } else { "" };
    let rights = format!("{}{business}", application.scopes);
    page("Application", &format!("<p>{}</p><p id=\"rights\">{}</p>", plain(&application.client_id), plain(&rights)))
}
