//! A part of prepared logs: tab-separated rows of exactly the requested size, generated while they are sent.

use bytes::Bytes;
use strict_http::number;

use super::day::Day;

/// The approximate size of the pieces in which rows are sent; all are views of the same memory.
const BLOCK_BYTES: usize = 64 * 1024;

/// The remainder of a part that has not been sent.
pub struct Part {
    head: Bytes,
    block: Bytes,
    row_bytes: u64,
    rows: u64,
    last: Bytes,
}

impl Part {
    /// Creates a part of `bytes` bytes with the columns `fields`; rows have the date `day`. The last row is longer, to fill
    /// the size exactly; a part too small for its header line is cut inside it.
    pub fn new(fields: &[String], day: Day, bytes: u64) -> Self {
        let head = Bytes::from(fields.join("\t") + "\n");
        let head = head.slice(..head.len().min(number::length(bytes)));
        let first = row(fields, day, 0);
        let row_bytes = first.len().max(1);
        let block: String = (0..BLOCK_BYTES.div_ceil(row_bytes)).map(|number| row(fields, day, number)).collect();
        let row_bytes = number::count(row_bytes);
        let left = bytes.saturating_sub(number::count(head.len()));
        let filling = "0".repeat(number::length(left % row_bytes));
        let last = match left / row_bytes {
            0 => filling.strip_prefix('0').map_or_else(String::new, |filling| format!("{filling}\n")),
            _ => format!("{}{filling}\n", first.trim_end_matches('\n')),
        };
        let rows = (left / row_bytes).saturating_sub(1);
        Self { head, block: Bytes::from(block), row_bytes, rows, last: Bytes::from(last) }
    }

    /// The number of bytes left to send.
    pub fn left(&self) -> u64 {
        number::count(self.head.len()) + self.rows * self.row_bytes + number::count(self.last.len())
    }
}

impl Iterator for Part {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if !self.head.is_empty() {
            return Some(std::mem::take(&mut self.head));
        }
        if self.rows == 0 {
            return Some(std::mem::take(&mut self.last)).filter(|last| !last.is_empty());
        }
        let rows = self.rows.min(number::count(self.block.len()) / self.row_bytes);
        self.rows -= rows;
        let end = number::length(rows * self.row_bytes);
        Some(self.block.slice(..end.min(self.block.len())))
    }
}

/// Generates a row; every row has the same length.
fn row(fields: &[String], day: Day, number: usize) -> String {
    let cells: Vec<String> = fields.iter().map(|field| cell(field, day, number)).collect();
    cells.join("\t") + "\n"
}

fn cell(field: &str, day: Day, number: usize) -> String {
    let name = field.rsplit(':').next().unwrap_or(field);
    if name.contains("dateTime") || name.contains("DateTime") {
        format!("{day} {:02}:{:02}:{:02}", number / 3600 % 24, number / 60 % 60, number % 60)
    } else if name.contains("date") || name.contains("Date") {
        day.to_string()
    } else if name.contains("URL") || name.contains("referer") {
        format!("https://shop.example/page/{number:06}")
    } else if name.ends_with("ID") {
        format!("16{number:017}")
    } else {
        format!("{number:06}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_exactly_its_size() {
        let fields = ["ym:s:visitID", "ym:s:dateTime", "ym:s:startURL"].map(str::to_owned);
        let head = number::count(fields.join("\t").len()) + 1;
        for bytes in [0, 1, head - 1, head, head + 1, 120, 121, 1_000, 64 * 1024, 1_000_003] {
            let part = Part::new(&fields, Day::parse("2026-01-02").unwrap(), bytes);
            assert_eq!(part.left(), bytes);
            let text: Vec<u8> = part.flatten().collect();
            assert_eq!(number::count(text.len()), bytes);
            let text = String::from_utf8(text).unwrap();
            assert!(bytes < head || text.ends_with('\n'), "{bytes}");
            assert!(bytes <= 121 || text.lines().all(|line| line.split('\t').count() == 3), "{bytes}: {text}");
        }
    }
}
