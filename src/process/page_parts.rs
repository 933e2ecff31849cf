//! The parts that the sections of the status page have in common: tables, lists of facts, numbers and times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maud::{Markup, html};

/// A column of a table: its title, and whether it contains numbers.
pub type Column = (&'static str, bool);

/// Returns a section with a heading; `id` names it in links.
pub fn section(id: &'static str, title: &str, content: &Markup) -> Markup {
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) tabindex="-1" { (title) }
            (content)
        }
    }
}

/// Returns a table whose first column names each row. The roles are explicit because the style sheet turns rows into
/// cards on narrow screens, where browsers forget them.
pub fn table(id: &str, label: &str, columns: &[Column], rows: &[Vec<Markup>]) -> Markup {
    html! {
        div class="scroll" id={ "scroll-" (id) } role="region" aria-label=(label) tabindex="0" {
            table role="table" aria-label=(label) {
                thead role="rowgroup" {
                    tr role="row" {
                        @for (title, is_number) in columns {
                            th role="columnheader" scope="col" class=[is_number.then_some("number")] { (title) }
                        }
                    }
                }
                tbody role="rowgroup" {
                    @for row in rows {
                        tr role="row" {
                            @for ((title, is_number), (position, cell)) in columns.iter().zip(row.iter().enumerate()) {
                                @if position == 0 {
                                    th role="rowheader" scope="row" { (cell) }
                                } @else {
                                    td role="cell" data-label=(title) class=[is_number.then_some("number")] { div { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Returns a list of names and values.
pub fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! {
        dl class="facts" {
            @for (name, value) in facts {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// Returns a text as markup, escaped.
pub fn text(text: impl maud::Render) -> Markup {
    html! { (text) }
}

/// Returns a dash for an absent value.
pub fn absent() -> Markup {
    html! { span class="absent" title="unknown" { "–" } }
}

/// Writes a number with a comma between thousands.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut written = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            written.push(',');
        }
        written.push(digit);
    }
    written
}

/// Writes a duration in its largest unit.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        172_800..63_072_000 => format!("{} d", seconds / 86_400),
        _ => format!("{} years", seconds / 31_557_600),
    }
}

/// Writes seconds with the precision that matters.
pub fn seconds(seconds: f64) -> String {
    if seconds < 0.001 {
        "< 1 ms".to_owned()
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.1} s")
    }
}

/// Returns a time in seconds since 1970: how long ago it was, or how far ahead it is, and the exact time.
pub fn time(at: u64, now: SystemTime) -> Markup {
    let Some(exact) = UNIX_EPOCH.checked_add(Duration::from_secs(at)) else { return absent() };
    let relative = match now.duration_since(exact) {
        Ok(ago) => format!("{} ago", span(ago)),
        Err(ahead) => format!("in {}", span(ahead.duration())),
    };
    let exact = humantime::format_rfc3339_seconds(exact).to_string();
    html! { time datetime=(exact) title=(exact) { (relative) } }
}

/// Returns how long something has lasted since a time in seconds since 1970, and the exact time.
pub fn lasting(since: u64, now: SystemTime) -> Markup {
    let Some(exact) = UNIX_EPOCH.checked_add(Duration::from_secs(since)) else { return absent() };
    let lasted = now.duration_since(exact).map_or_else(|_| span(Duration::ZERO), span);
    let exact = humantime::format_rfc3339_seconds(exact).to_string();
    html! { time datetime=(exact) title=(exact) { (lasted) } }
}

/// Returns an optional time, as [`time`] does.
pub fn time_or_absent(at: Option<u64>, now: SystemTime) -> Markup {
    at.map_or_else(absent, |at| time(at, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        let written: Vec<_> = [0, 999, 1000, 12_345, 1_234_567].map(number).into();
        assert_eq!(written, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn times_are_relative_and_exact() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!(time(999_940, now).into_string().contains(">1 min ago<"));
        assert!(time(1_000_000 + 3 * 86_400, now).into_string().contains(">in 3 d<"));
        assert!(time(0, now).into_string().contains("datetime=\"1970-01-01T00:00:00Z\""));
        assert_eq!(time(u64::MAX, now).into_string(), absent().into_string());
        assert!(time(4_000_000_000, now).into_string().contains(">in 126 years<"));
        assert!(lasting(992_800, now).into_string().contains(">2 h<"));
    }

    #[test]
    fn every_text_is_escaped() {
        let hostile = "<script>alert(1)</script>\"'&";
        let cell = table("t", hostile, &[("a", false)], &[vec![text(hostile)]]).into_string();
        let all =
            [cell, facts(&[(hostile, text(hostile))]).into_string(), section("s", hostile, &text("")).into_string()];
        for page in all {
            assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
            assert!(!page.contains("\"'&\""), "an attribute cannot be left: {page}");
        }
    }
}
