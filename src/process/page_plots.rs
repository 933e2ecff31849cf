//! The plots of the status page: inline SVG, without a style or a script of their own.
//!
//! 1. A plot has a title that a screen reader reads, and the figures that it shows are also in a table or a legend.
//! 2. Colours come from classes of the style sheet, so that both colour schemes have enough contrast.

use maud::{Markup, html};

use super::history::COLUMNS;

/// A series of a plot: its class in the style sheet, its name, and its value in each minute, the latest last.
pub struct Series {
    /// The class.
    pub class: &'static str,
    /// The name in the legend.
    pub name: &'static str,
    /// The values.
    pub values: Vec<f64>,
}

/// The width of one column, in units of the drawing.
const COLUMN: usize = 10;
/// The height of a plot, in units of the drawing.
const HEIGHT: f64 = 120.0;
/// The height of a small plot in a table, in units of the drawing.
const SMALL: f64 = 24.0;

/// The position from the left of the column `index` of `count`: the last one is at the right edge.
fn left(index: usize, count: usize) -> usize {
    (COLUMNS.saturating_sub(count) + index) * COLUMN
}

/// Returns the values of one minute in each series.
fn minute(series: &[Series], index: usize) -> impl Iterator<Item = (&'static str, f64)> {
    series.iter().map(move |one| (one.class, one.values.get(index).map_or(0.0, |value| *value)))
}

/// Returns the number of minutes that `series` have.
fn minutes(series: &[Series]) -> usize {
    series.iter().map(|one| one.values.len()).max().map_or(0, |most| most.min(COLUMNS))
}

/// Returns the highest sum of a minute.
pub fn highest(series: &[Series]) -> f64 {
    (0..minutes(series)).map(|index| minute(series, index).map(|(_, value)| value).sum()).fold(0.0, f64::max)
}

/// Draws the series stacked on each other, one bar a minute.
pub fn stacked(title: &str, series: &[Series], most: &str) -> Markup {
    let (count, top) = (minutes(series), highest(series));
    framed(title, most, &bars(series, count, top, HEIGHT))
}

/// Draws each series as a line.
pub fn lines(title: &str, series: &[Series], most: &str) -> Markup {
    let count = minutes(series);
    let top = series.iter().flat_map(|one| &one.values).fold(0.0, |top: f64, value| top.max(*value));
    let drawn = html! {
        @for one in series {
            @for run in runs(&one.values, count, top) {
                polyline class=(one.class) points=(run) {}
            }
        }
    };
    framed(title, most, &drawn)
}

/// Returns the points of each run of minutes that have a value. A run of one minute is drawn as wide as its column.
fn runs(values: &[f64], count: usize, top: f64) -> Vec<String> {
    let (mut runs, mut run) = (Vec::new(), String::new());
    for (index, value) in values.iter().take(count).enumerate() {
        if value.is_nan() || top <= 0.0 {
            runs.push(std::mem::take(&mut run));
            continue;
        }
        let (x, y) = (left(index, count), HEIGHT - value / top * HEIGHT);
        run.push_str(&format!("{x},{y:.1} {},{y:.1} ", x + COLUMN));
    }
    runs.push(run);
    runs.retain(|run| !run.is_empty());
    runs
}

/// Draws one series in a row of a table.
pub fn small(title: &str, class: &'static str, values: Vec<f64>) -> Markup {
    let series = [Series { class, name: "", values }];
    let (count, top) = (minutes(&series), highest(&series));
    html! {
        svg class="small" role="img" viewBox={ "0 0 " (COLUMNS * COLUMN) " " (SMALL) } preserveAspectRatio="none" {
            title { (title) }
            line class="axis" x1="0" x2=(COLUMNS * COLUMN) y1=(SMALL) y2=(SMALL) {}
            (bars(&series, count, top, SMALL))
        }
    }
}

/// Draws the part `used` of `whole` as a bar.
pub fn part(title: &str, class: &'static str, used: f64, whole: f64) -> Markup {
    let width = if whole > 0.0 { (used / whole).clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    html! {
        svg class="part" role="img" viewBox="0 0 100 8" preserveAspectRatio="none" {
            title { (title) }
            rect class="whole" x="0" y="0" width="100" height="8" {}
            rect class=(class) x="0" y="0" width=(format!("{width:.1}")) height="8" {}
        }
    }
}

/// Draws the bars of `count` minutes; `top` is the value at the full `height`.
fn bars(series: &[Series], count: usize, top: f64, height: f64) -> Markup {
    html! {
        @for index in 0..count {
            @let bars = stack(minute(series, index), top, height);
            @for (class, y, bar) in bars {
                rect class=(class) x=(left(index, count) + 1) y=(format!("{y:.1}")) width=(COLUMN - 2) height=(format!("{bar:.1}")) {}
            }
        }
    }
}

/// Returns the class, the upper edge and the height of each bar of one minute. A value above zero is at least one unit high.
fn stack(values: impl Iterator<Item = (&'static str, f64)>, top: f64, height: f64) -> Vec<(&'static str, f64, f64)> {
    let mut y = height;
    let bar = |(class, value): (&'static str, f64)| {
        let bar = (value / top * height).max(1.0).min(y);
        y -= bar;
        (class, y, bar)
    };
    values.filter(|(_, value)| *value > 0.0).map(bar).collect()
}

/// Draws the frame around `drawn`: the axes and the time below.
fn framed(title: &str, most: &str, drawn: &Markup) -> Markup {
    let width = COLUMNS * COLUMN;
    html! {
        div class="plot" {
            p class="most" aria-hidden="true" { (most) }
            svg role="img" viewBox={ "0 0 " (width) " " (HEIGHT) } preserveAspectRatio="none" {
                title { (title) }
                @for quarter in 1..4 {
                    line class="grid" x1=(width * quarter / 4) x2=(width * quarter / 4) y1="0" y2=(HEIGHT) {}
                }
                line class="grid" x1="0" x2=(width) y1="0.5" y2="0.5" {}
                (drawn)
                line class="axis" x1="0" x2=(width) y1=(HEIGHT) y2=(HEIGHT) {}
            }
            p class="times" aria-hidden="true" {
                span { "60 min ago" } span { "45" } span { "30" } span { "15" } span class="now" { "now" }
            }
        }
    }
}

/// Lists the series with their sums.
pub fn legend(series: &[Series], shown: impl Fn(&Series) -> String) -> Markup {
    html! {
        ul class="legend" {
            @for one in series {
                li { span class={ "key " (one.class) } aria-hidden="true" {} (one.name) " " b { (shown(one)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_end_at_the_right_edge() {
        assert_eq!((left(0, COLUMNS), left(0, 1)), (0, (COLUMNS - 1) * COLUMN));
        assert_eq!(left(COLUMNS - 1, COLUMNS) + COLUMN, COLUMNS * COLUMN);
    }

    #[test]
    fn bars_fill_the_height_and_small_values_are_visible() {
        let bars = stack([("a", 50.0), ("b", 0.0), ("c", 50.0)].into_iter(), 100.0, 10.0);
        assert_eq!(bars, [("a", 5.0, 5.0), ("c", 0.0, 5.0)]);
        let bars = stack([("a", 1.0)].into_iter(), 1_000_000.0, 10.0);
        assert_eq!(bars, [("a", 9.0, 1.0)]);
    }

    #[test]
    fn lines_have_a_gap_where_a_minute_has_no_value() {
        let runs = runs(&[1.0, f64::NAN, 2.0, 2.0], 4, 2.0);
        assert_eq!(runs.len(), 2, "{runs:?}");
        assert!(runs[1].contains(",0.0 "), "the highest value is at the upper edge: {runs:?}");
        assert!(super::runs(&[0.0], 1, 0.0).is_empty(), "nothing is drawn without values");
    }
}
