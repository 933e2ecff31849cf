//! Operations of the API: a closed table, compiled in from `operation/catalogue.txt`.
//!
//! 1. A request matches an operation if its method and every segment of its path match one line of the table; a segment in
//!    braces matches any one segment.
//! 2. The last segment may end in `.json` or `.csv` if the table allows it. Otherwise, a segment with such an ending does
//!    not match a segment in braces.
//! 3. HEAD matches the GET of the same path, unless that GET changes something: then the path does not support HEAD.
//! 4. No two lines match the same request; a configuration can add lines, but never change or shadow one.
//! 5. A request that matches no line is unknown and refused. With `unknown_operations: by_method`, a request under a path
//!    prefix of the API is treated by its method instead.

use std::collections::HashMap;
use std::fmt;

use crate::scope::{Scope, ScopeSet};

mod marks;
mod quota_group;
mod reach;
mod verb;

use marks::Marks;
pub use marks::{Adds, Destructive, Place, Setting, Shares};
pub use quota_group::QuotaGroup;
pub use reach::Reach;
pub use verb::Verb;

crate::interned_names! {
    /// The id of an operation of the catalogue or of the configuration.
    OperationId;
}

/// An operation: one line of the table.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The stable name used in metrics and logs; it is not Metrica's.
    pub id: OperationId,
    /// The method; [`Verb::Get`] includes HEAD.
    pub verb: Verb,
    /// The path, with parameters in braces.
    pub template: Box<str>,
    /// The accepted scopes: any one of them is enough.
    pub scopes: ScopeSet,
    /// The rate limit group.
    pub quota: QuotaGroup,
    /// The data that the operation affects.
    pub reach: Reach,
    /// Whether the last segment may end in `.json` or `.csv`.
    pub suffixes: bool,
    /// Whether the request may carry a body of up to 1 GB.
    pub upload: bool,
    /// Whether the response can take minutes or be gigabytes long.
    pub long: bool,
    /// Whether it carries a file that nobody waits for: a part of the Logs API, or an upload.
    pub bulk: bool,
    /// Whether it changes something, as every operation except an unmarked GET does. Such a request is never retried.
    pub acts: bool,
    /// The condition under which it is destructive.
    pub destructive: Destructive,
    /// The recipients of access that it grants.
    pub shares: Shares,
    /// The kind of access that it adds, if Metrica limits that by the hour.
    pub adds: Adds,
    /// Whether the API reference no longer lists it, although clients still use it.
    pub deprecated: bool,
}

impl Operation {
    /// Returns a segment of a matching path, without a suffix (rule 2); `None` if the path is shorter. `position` counts
    /// from 0 after the first slash.
    #[must_use]
    pub fn segment<'a>(&self, path: &'a str, position: usize) -> Option<&'a str> {
        let mut segments = path.split('/').skip(position + 1);
        let segment = segments.next()?;
        let is_last = segments.next().is_none();
        Some(without_suffix(segment).filter(|_| is_last && self.suffixes).unwrap_or(segment))
    }

    /// Whether its last segment is a parameter.
    fn ends_in_any(&self) -> bool {
        self.template.ends_with('}')
    }

    /// Whether the last segment of such a path may end in `.json` or `.csv`. The documentation allows it in the management
    /// API, in reports and in their older form.
    #[must_use]
    pub fn may_have_suffixes(template: &str) -> bool {
        ["/management/", "/stat/", "/analytics/"].iter().any(|family| template.starts_with(family))
    }
}

/// The result of looking up a method and a path.
#[derive(Debug, Clone, Copy)]
pub enum Lookup<'a> {
    /// The operation that matches.
    Known(&'a Operation),
    /// The path exists, but not with this method.
    OtherMethod,
    /// No line matches the path.
    Unknown,
}

/// The treatment of requests that match no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownOperations {
    /// They are refused.
    #[default]
    Deny,
    /// GET and HEAD need `metrika:read`, everything else `metrika:write`.
    ByMethod,
}

/// The reason why a line cannot be added to the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOperation {
    /// The catalogue has the operation already (rule 4).
    #[error("is already {0} in the built-in catalogue, which cannot be changed")]
    Taken(OperationId),
    /// A request could match both lines (rule 4).
    #[error("overlaps {0}: one request could match both")]
    Overlaps(Box<str>),
    /// Not a valid path template.
    #[error("is not a path template; expected '/' and segments that are text or one name in braces")]
    Template,
}

#[derive(Debug, Clone, Default)]
struct Node {
    fixed: HashMap<Box<str>, usize, rustc_hash::FxBuildHasher>,
    any: Option<usize>,
    /// Indexed by [`Verb::slot`].
    operations: [Option<usize>; 5],
}

/// The table, as a tree of path segments.
#[derive(Clone)]
pub struct Catalogue {
    nodes: Vec<Node>,
    operations: Vec<Operation>,
    unknown: UnknownOperations,
    unknown_read: Operation,
    unknown_write: Operation,
}

/// The path prefixes of the API; unknown requests elsewhere are always refused (rule 5).
const AREAS: [&str; 5] = ["/management/", "/stat/", "/analytics/", "/cdp/", "/export/"];

const BUILT_IN: &str = include_str!("operation/catalogue.txt");

impl Catalogue {
    /// Returns the table that is compiled in.
    #[must_use]
    pub fn built_in() -> Self {
        let unknown = |verb, scope| Operation {
            id: OperationId::new("unknown"),
            verb,
            template: "*".into(),
            scopes: [scope].into_iter().collect(),
            quota: if matches!(scope, Scope::Read) { QuotaGroup::ClientRead } else { QuotaGroup::ClientWrite },
            reach: Reach::Account,
            suffixes: false,
            upload: false,
            long: false,
            bulk: false,
            // An unknown GET may change something.
            acts: true,
            // Its effects are unknown, so assume that it cannot be undone and grants access to anyone.
            destructive: Destructive::of(matches!(scope, Scope::Write)),
            shares: if matches!(scope, Scope::Write) { Shares::Anyone } else { Shares::Nothing },
            adds: Adds::Nothing,
            deprecated: false,
        };
        let mut catalogue = Self {
            nodes: vec![Node::default()],
            operations: Vec::new(),
            unknown: UnknownOperations::Deny,
            unknown_read: unknown(Verb::Get, Scope::Read),
            unknown_write: unknown(Verb::Post, Scope::Write),
        };
        for operation in BUILT_IN.lines().filter_map(parse_line) {
            // The test `every_path_fits_exactly_one_line` ensures it.
            let inserted = catalogue.insert(operation);
            debug_assert!(inserted.is_ok(), "no two lines of the built-in catalogue overlap");
        }
        catalogue
    }

    /// Sets the treatment of unknown operations (rule 5).
    #[must_use]
    pub const fn with_unknown(mut self, unknown: UnknownOperations) -> Self {
        self.unknown = unknown;
        self
    }

    /// Returns every line, in the order of the table.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Looks up the operation of a method and a canonical path.
    #[must_use]
    pub fn find(&self, verb: Verb, path: &str) -> Lookup<'_> {
        match (self.find_known(verb, path), self.unknown) {
            (Lookup::Known(operation), _) if verb == Verb::Head && operation.acts => Lookup::OtherMethod,
            (Lookup::Known(operation), _) => Lookup::Known(operation),
            (other, UnknownOperations::Deny) => other,
            (other, UnknownOperations::ByMethod) if !AREAS.iter().any(|area| path.starts_with(area)) => other,
            (_, UnknownOperations::ByMethod) => {
                Lookup::Known(if verb.is_safe() { &self.unknown_read } else { &self.unknown_write })
            }
        }
    }

    /// Whether a line has this path, with any method.
    #[must_use]
    pub fn knows(&self, path: &str) -> bool {
        !matches!(self.find_known(Verb::Get, path), Lookup::Unknown)
    }

    fn find_known(&self, verb: Verb, path: &str) -> Lookup<'_> {
        let Some(path) = path.strip_prefix('/') else { return Lookup::Unknown };
        let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
        let mut node = self.nodes.first();
        if !folder.is_empty() {
            for segment in folder.split('/') {
                node = node.and_then(|node| self.child(node, segment));
            }
        }
        let Some(parent) = node else { return Lookup::Unknown };
        let plain = self.child(parent, last);
        // A parameter matches any segment, so a suffix after a fixed name is tried even if a parameter matches.
        let stripped = without_suffix(last);
        let suffixed = stripped.filter(|name| !name.is_empty()).and_then(|name| self.child(parent, name));
        // A segment that ends in a suffix does not match a parameter of a line without suffixes.
        let fits_plain = |operation: &&Operation| stripped.is_none() || operation.suffixes || !operation.ends_in_any();
        let fits_suffixed = |operation: &&Operation| operation.suffixes;
        let operation = |node: Option<&Node>| {
            let index = (*node?.operations.get(verb.slot())?)?;
            self.operations.get(index)
        };
        match (operation(plain).filter(fits_plain), operation(suffixed).filter(fits_suffixed)) {
            (Some(found), _) | (None, Some(found)) => Lookup::Known(found),
            (None, None) => {
                let path_is_known = self.lines(plain).any(|line| fits_plain(&line))
                    || self.lines(suffixed).any(|line| fits_suffixed(&line));
                if path_is_known { Lookup::OtherMethod } else { Lookup::Unknown }
            }
        }
    }

    fn lines(&self, node: Option<&Node>) -> impl Iterator<Item = &Operation> {
        let lines = node.into_iter().flat_map(|node| node.operations).flatten();
        lines.filter_map(|index| self.operations.get(index))
    }

    fn child(&self, node: &Node, segment: &str) -> Option<&Node> {
        let index = node.fixed.get(segment).copied().or(node.any)?;
        self.nodes.get(index)
    }

    /// Adds a line (rule 4).
    ///
    /// # Errors
    /// [`BadOperation`] if the template is invalid, or if a request could match both this line and another.
    pub fn add(&mut self, operation: Operation) -> Result<(), BadOperation> {
        let segments = parse_template(&operation.template).ok_or(BadOperation::Template)?;
        for other in &self.operations {
            let same_path = parse_template(&other.template).is_some_and(|other| other == segments);
            if same_path && other.verb.operation() == operation.verb.operation() {
                return Err(BadOperation::Taken(other.id));
            }
            // Regardless of the methods: the tree prefers a fixed segment to a parameter and does not backtrack.
            if !same_path && overlap(&other.template, &operation.template) {
                return Err(BadOperation::Overlaps(other.template.clone()));
            }
        }
        self.insert(operation)
    }

    fn insert(&mut self, operation: Operation) -> Result<(), BadOperation> {
        let segments = parse_template(&operation.template).ok_or(BadOperation::Template)?;
        let mut at = 0;
        for segment in segments {
            at = self.descend(at, segment).ok_or(BadOperation::Template)?;
        }
        let index = self.operations.len();
        if let Some(slot) = self.nodes.get_mut(at).and_then(|node| node.operations.get_mut(operation.verb.slot())) {
            *slot = Some(index);
        }
        self.operations.push(operation);
        Ok(())
    }

    fn descend(&mut self, at: usize, segment: Segment<'_>) -> Option<usize> {
        let next = self.nodes.len();
        let node = self.nodes.get_mut(at)?;
        let child = match segment {
            Segment::Fixed(name) => *node.fixed.entry(name.into()).or_insert(next),
            Segment::Any => *node.any.get_or_insert(next),
        };
        if child == next {
            self.nodes.push(Node::default());
        }
        Some(child)
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Catalogue({} operations)", self.operations.len())
    }
}

/// The segment without its suffix (rule 2), or `None` if it has none.
fn without_suffix(segment: &str) -> Option<&str> {
    segment.strip_suffix(".json").or_else(|| segment.strip_suffix(".csv"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment<'a> {
    Fixed(&'a str),
    Any,
}

fn parse_template(template: &str) -> Option<Vec<Segment<'_>>> {
    template.strip_prefix('/')?.split('/').map(parse_segment).collect()
}

fn parse_segment(segment: &str) -> Option<Segment<'_>> {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.~".contains(&b));
    match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => word(name).then_some(Segment::Any),
        None => (word(segment) && segment != "." && segment != "..").then_some(Segment::Fixed(segment)),
    }
}

/// Whether one path could match both templates.
fn overlap(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (parse_template(one), parse_template(other)) else { return false };
    one.len() == other.len()
        && one.iter().zip(&other).all(|pair| match pair {
            (Segment::Fixed(one), Segment::Fixed(other)) => one == other,
            (Segment::Any, _) | (_, Segment::Any) => true,
        })
}

fn parse_line(line: &'static str) -> Option<Operation> {
    let mut columns = line.split_whitespace();
    let mut next = || columns.next().filter(|column| !column.starts_with('#'));
    let verb = next().and_then(|method| Verb::ALL.into_iter().find(|verb| verb.as_str() == method))?;
    let (template, id, scopes, quota) = (next()?, next()?, next()?, next()?);
    let (suffixes, marks) = (next()?, Marks::parse(next()?)?);
    Some(Operation {
        id: OperationId::new(id),
        verb,
        template: template.into(),
        scopes: scopes.split('|').map(|scope| format!("metrika:{scope}").parse()).collect::<Result<_, _>>().ok()?,
        quota: QuotaGroup::parse(quota)?,
        reach: Reach::of(verb, template),
        suffixes: suffixes == "json+csv",
        upload: marks.upload,
        long: marks.long,
        bulk: marks.bulk,
        acts: marks.acts || !verb.is_safe(),
        destructive: marks.destructive,
        shares: marks.shares,
        adds: marks.adds,
        deprecated: marks.deprecated,
    })
}

#[cfg(test)]
mod tests;
