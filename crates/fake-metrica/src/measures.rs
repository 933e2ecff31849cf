//! The values of reports, computed by formulas from the name of a metric and the number of a row. The same query always has
//! the same response, and a row costs nothing until it is requested.

use strict_http::number;

use super::day::Day;

/// The number of rows of a report with dimensions: the maximum of one response.
pub const ROWS: u32 = 100_000;

/// The values of the most requested dimensions.
const NAMES: &[(&str, &[&str])] = &[
    ("TrafficSource", &["Search engine traffic", "Direct traffic", "Ad traffic", "Link traffic", "Internal traffic"]),
    ("SearchEngine", &["Yandex", "Google", "Bing"]),
    ("browser", &["Chrome", "Yandex Browser", "Safari", "Firefox", "Edge"]),
    ("operatingSystem", &["Android", "Windows", "iOS", "macOS", "GNU/Linux"]),
    ("deviceCategory", &["Smartphones", "PC", "Tablets", "TV"]),
    ("regionCountry", &["Russia", "Kazakhstan", "Belarus", "Serbia"]),
    ("regionCity", &["Moscow", "Saint Petersburg", "Novosibirsk", "Yekaterinburg", "Kazan"]),
];

/// A metric.
pub struct Measure {
    base: u32,
    /// Whether the metric is an average or a share, which does not add up.
    is_mean: bool,
}

impl Measure {
    pub fn of(metric: &str) -> Self {
        let is_mean = ["Rate", "Percentage", "Depth", "Duration", "avg"].iter().any(|word| metric.contains(word));
        let base = metric.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Self { base: base % 90 + 10, is_mean }
    }

    /// The value in a row. Rows are in descending order.
    pub fn value(&self, row: u32) -> f64 {
        if self.is_mean {
            f64::from(self.base) / 2.0 + f64::from(row % 8) / 8.0
        } else {
            f64::from(self.base + ROWS.saturating_sub(row))
        }
    }

    /// The total of all rows.
    pub fn total(&self) -> f64 {
        let (rows, base) = (f64::from(ROWS), f64::from(self.base));
        if self.is_mean { base / 2.0 + 3.5 / 8.0 } else { rows * base + rows * (rows + 1.0) / 2.0 }
    }

    /// The smallest and the largest value.
    pub fn range(&self) -> (f64, f64) {
        if self.is_mean { (self.value(0), self.value(7)) } else { (self.value(ROWS - 1), self.value(0)) }
    }
}

/// The value of a dimension in a row.
pub fn name(dimension: &str, row: u32, from: Day) -> String {
    if dimension.to_ascii_lowercase().ends_with("date") {
        return from.after(u64::from(row)).to_string();
    }
    let fits = |word: &&str| dimension.to_ascii_lowercase().contains(&word.to_ascii_lowercase());
    let names = NAMES.iter().find(|(word, _)| fits(word)).map_or(&[][..], |(_, names)| *names);
    let index = number::length(row.into());
    match names.get(index) {
        Some(name) => (*name).to_owned(),
        None => format!("{} {row}", dimension.rsplit(':').next().unwrap_or(dimension)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sum_of_the_rows() {
        let measure = Measure::of("ym:s:visits");
        let sum: f64 = (0..ROWS).map(|row| measure.value(row)).sum();
        assert!((sum - measure.total()).abs() < 1.0);
        assert_eq!(measure.range(), (measure.value(ROWS - 1), measure.value(0)));
        let mean = Measure::of("ym:s:bounceRate");
        assert!((0..8).map(|row| mean.value(row)).all(|value| (5.0..=51.0).contains(&value)));
    }
}
