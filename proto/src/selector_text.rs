//! The text form of selectors: `topic in (one, two), name:prefix=my/journals/, !deprecated`.
//!
//! Expressions are separated by commas, with at most one space around each part. The forms are tried in a fixed order at
//! each position: `k = v` (also `==`), `k != v`, `k in (a, b)`, `k not in (a)` (also `notin`), `k`, `!k`. A `:prefix`
//! after the name lets the values match as prefixes. The printer's output parses back to the same selector.

use crate::invalid::{Invalid, Validate, ensure};
use crate::protocol::{Label, LabelSelector, LabelSet};
use crate::token::{PATH_SYMBOLS, TOKEN_SYMBOLS, is_token_char};
use std::fmt;
use std::str::FromStr;

impl FromStr for LabelSelector {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<LabelSelector, Invalid> {
        let (mut include, mut exclude) = (Vec::new(), Vec::new());
        let mut rest = text;
        while !rest.is_empty() {
            let Some((expression, after)) = parse_expression(rest) else {
                return Err(Invalid::new(format!("could not match {rest:?} to a label selector expression")));
            };
            let labels = expression.labels().map_err(|e| e.within(format!("parsing {rest:?}")))?;
            if expression.excludes { &mut exclude } else { &mut include }.extend(labels);
            rest = after;
        }
        let selector = LabelSelector { include: Some(sorted(include)), exclude: Some(sorted(exclude)) };
        selector.validate()?;
        Ok(selector)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (set, excludes) in [(self.include_set(), false), (self.exclude_set(), true)] {
            for (name, labels) in set.groups() {
                // A name may have values of both kinds, which need an expression each.
                for (suffix, prefix) in [("", false), (":prefix", true)] {
                    let values: Vec<&str> =
                        labels.iter().filter(|l| l.prefix == prefix).map(|l| l.value.as_str()).collect();
                    if values.is_empty() {
                        continue;
                    }
                    f.write_str(separator)?;
                    separator = ",";
                    print_expression(f, &format!("{name}{suffix}"), &values, excludes)?;
                }
            }
        }
        Ok(())
    }
}

fn print_expression(f: &mut fmt::Formatter<'_>, name: &str, values: &[&str], excludes: bool) -> fmt::Result {
    match (values, excludes) {
        ([""], false) => f.write_str(name),
        ([""], true) => write!(f, "!{name}"),
        // `k==v` is `k=v`, so a value which begins with '=' needs the longer operator.
        ([value], false) if value.starts_with('=') => write!(f, "{name}=={value}"),
        ([value], false) => write!(f, "{name}={value}"),
        ([value], true) => write!(f, "{name}!={value}"),
        (values, false) => write!(f, "{name} in ({})", values.join(",")),
        (values, true) => write!(f, "{name} notin ({})", values.join(",")),
    }
}

struct Expression<'a> {
    name: &'a str,
    prefix: bool,
    excludes: bool,
    values: Values<'a>,
}

enum Values<'a> {
    One(&'a str),
    /// What stands between the parentheses.
    Set(&'a str),
}

impl Expression<'_> {
    fn labels(&self) -> Result<Vec<Label>, Invalid> {
        let label = |value: &str| Label { name: self.name.into(), value: value.into(), prefix: self.prefix };
        let mut rest = match self.values {
            Values::One(value) => return Ok(vec![label(value)]),
            Values::Set(parts) => parts,
        };
        let mut labels = Vec::new();
        while !rest.is_empty() {
            let mut cursor = Cursor(rest);
            let value = cursor.space().chars(PATH_SYMBOLS);
            let complete = !value.is_empty() && cursor.comma_or_end();
            ensure!(complete, "could not match {rest:?} to a label selector set expression");
            labels.push(label(value));
            rest = cursor.0;
        }
        Ok(labels)
    }
}

/// Parses one expression at the start of `text`, and returns what follows it.
fn parse_expression(text: &str) -> Option<(Expression<'_>, &str)> {
    let mut cursor = Cursor(text);
    let negated = cursor.space().eat("!");
    let (name, prefix) = if negated { cursor.space().name()? } else { cursor.name()? };
    let exists = Expression { name, prefix, excludes: negated, values: Values::One("") };
    if negated {
        return cursor.comma_or_end().then_some((exists, cursor.0));
    }
    for form in [parse_comparison, parse_membership] {
        let mut attempt = cursor;
        if let Some((excludes, values)) = form(&mut attempt)
            && attempt.comma_or_end()
        {
            return Some((Expression { excludes, values, ..exists }, attempt.0));
        }
    }
    cursor.comma_or_end().then_some((exists, cursor.0))
}

/// ` = v`, ` == v`, ` != v`.
fn parse_comparison<'a>(cursor: &mut Cursor<'a>) -> Option<(bool, Values<'a>)> {
    cursor.space();
    let excludes = cursor.eat("!=");
    if !excludes && !cursor.eat("==") && !cursor.eat("=") {
        return None;
    }
    Some((excludes, Values::One(cursor.space().chars(PATH_SYMBOLS))))
}

/// ` in (a, b)`, ` not in (a)`, ` notin (a)`.
fn parse_membership<'a>(cursor: &mut Cursor<'a>) -> Option<(bool, Values<'a>)> {
    let excludes = cursor.eat(" notin") || cursor.eat(" not in");
    if !excludes && !cursor.eat(" in") {
        return None;
    }
    if !cursor.space().eat("(") {
        return None;
    }
    let (parts, after) = cursor.0.split_once(')').filter(|(parts, _)| !parts.is_empty())?;
    cursor.0 = after;
    Some((excludes, Values::Set(parts)))
}

/// The text which is not parsed yet.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn eat(&mut self, literal: &str) -> bool {
        match self.0.strip_prefix(literal) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// Skips one optional space.
    fn space(&mut self) -> &mut Self {
        self.eat(" ");
        self
    }

    /// The longest run of the alphabet, perhaps empty.
    fn chars(&mut self, symbols: &str) -> &'a str {
        let end = self.0.find(|c| !is_token_char(c, symbols)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        run
    }

    /// A name of two or more characters, and whether `:prefix` follows it.
    fn name(&mut self) -> Option<(&'a str, bool)> {
        let name = self.chars(TOKEN_SYMBOLS);
        let long_enough = name.chars().nth(1).is_some();
        long_enough.then(|| (name, self.eat(":prefix")))
    }

    fn comma_or_end(&mut self) -> bool {
        self.space().0.is_empty() || self.eat(",")
    }
}

/// Sorted, but with duplicates kept for validation to find.
fn sorted(mut labels: Vec<Label>) -> LabelSet {
    labels.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
    LabelSet { labels }
}

#[cfg(test)]
mod tests;
