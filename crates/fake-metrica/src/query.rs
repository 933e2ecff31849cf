//! The query of a request: decoded pairs, and the errors for missing or invalid parameters.

use std::str::FromStr;

use strict_http::target::name_and_value;

use super::refusal::Refusal;

/// The pairs of the query, in their order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = text.into_iter().flat_map(|text| text.split('&')).filter(|pair| !pair.is_empty());
        Self(pairs.map(name_and_value).map(|(name, value)| (decode(name), decode(value))).collect())
    }

    /// Returns the names of the parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Returns every value of a parameter.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Returns the first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns the first value of a parameter, or the API's default.
    pub fn get_or<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.get(name).unwrap_or(default)
    }

    /// Returns the first value of a parameter that must be present and not empty.
    pub fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| Refusal::missing(name))
    }

    /// Parses a number, if the parameter is present.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        self.get(name).map(|value| value.parse().map_err(|_| Refusal::invalid(name))).transpose()
    }

    /// Parses a number, or returns the API's default.
    pub fn number_or<T: FromStr>(&self, name: &str, default: T) -> Result<T, Refusal> {
        Ok(self.number(name)?.unwrap_or(default))
    }

    /// Returns the comma-separated values of a parameter. Repeated parameters are joined: clients send `ids=1&ids=2`.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.all(name).flat_map(|values| values.split(',')).map(str::trim).filter(|value| !value.is_empty()).collect()
    }

    /// Returns the comma-separated values of a parameter that must have at least one.
    pub fn required_list(&self, name: &str) -> Result<Vec<&str>, Refusal> {
        Some(self.list(name)).filter(|values| !values.is_empty()).ok_or_else(|| Refusal::missing(name))
    }

    /// Whether a flag is set: present, and not `0` or `false`.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value, "0" | "false"))
    }
}

/// Decodes as a form does: a plus is a space, and a percent sign that encodes nothing is kept.
fn decode(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = after.split_at_checked(2).filter(|_| *byte == b'%');
        let escaped = escaped.and_then(|(digits, behind)| Some((hexadecimal(digits)?, behind)));
        let plain_byte = if *byte == b'+' { b' ' } else { *byte };
        let (byte, after) = escaped.unwrap_or((plain_byte, after));
        plain.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let query = Query::parse(Some("ids=1%2C2,3&ids=4&filters=ym:s:a%3D%3D'b+c'&broken=%zz%&&empty=&flag"));
        assert_eq!(query.list("ids"), ["1", "2", "3", "4"]);
        assert_eq!(query.get("filters"), Some("ym:s:a=='b c'"));
        assert_eq!(query.get("broken"), Some("%zz%"));
        assert_eq!(query.required("empty"), Err(Refusal::missing("empty")));
        assert_eq!(query.required_list("empty"), Err(Refusal::missing("empty")));
        assert!(query.has("flag") && !query.has("other"));
        assert_eq!(query.number::<u32>("filters"), Err(Refusal::invalid("filters")));
    }
}
