//! Templates of output lines: the part of Go's `text/template` which makes sense of a UUID and a line.

use runtime::config::unquote;

/// What an action may be.
const EXPECTED: &str = "expected {{.UUID}}, {{.Line}} or a text in quotes";

/// A parsed template.
#[derive(Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Uuid,
    Line,
}

impl Template {
    /// Parses a template. Actions are `{{.UUID}}`, `{{.Line}}`, texts in quotes or back-quotes, and comments; a dash at
    /// their inner ends takes away white space before or after them.
    ///
    /// # Errors
    /// Names the action which is something else.
    pub fn parse(template: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let (mut rest, mut trims) = (template, false);
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = split_action(after)?;
            let (inner, trims_before) = match action.strip_prefix("- ") {
                Some(inner) => (inner, true),
                None => (action, false),
            };
            let (inner, trims_after) = match inner.strip_suffix(" -") {
                Some(inner) => (inner, true),
                None => (inner, false),
            };
            let before = if trims { before.trim_start() } else { before };
            let before = if trims_before { before.trim_end() } else { before };
            parts.push(Part::Text(before.to_owned()));
            parts.extend(part(inner.trim()).ok_or_else(|| unknown(action))?);
            (rest, trims) = (after, trims_after);
        }
        parts.push(Part::Text(if trims { rest.trim_start() } else { rest }.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Template(parts))
    }

    /// Appends the output for a UUID and a line.
    pub fn render(&self, uuid: &str, line: &[u8], output: &mut Vec<u8>) {
        for part in &self.0 {
            output.extend_from_slice(match part {
                Part::Text(text) => text.as_bytes(),
                Part::Uuid => uuid.as_bytes(),
                Part::Line => line,
            });
        }
    }
}

/// Splits after the `}}` which ends an action: one within quotes does not.
fn split_action(text: &str) -> Result<(&str, &str), String> {
    let first = text.find("}}").ok_or_else(|| format!("{{{{{text}: the action is not closed by }}}}"))?;
    let ends = text.match_indices("}}").map(|(at, _)| at);
    let is_whole = |end: &usize| {
        let inner = text[..*end].strip_prefix("- ").unwrap_or(&text[..*end]);
        part(inner.strip_suffix(" -").unwrap_or(inner).trim()).is_some()
    };
    let end = ends.into_iter().find(is_whole).unwrap_or(first);
    Ok((&text[..end], &text[end + 2..]))
}

/// What an action means: `None` if it is not known, nothing if it is a comment.
fn part(action: &str) -> Option<Option<Part>> {
    let raw = action.strip_prefix('`').and_then(|text| text.strip_suffix('`'));
    match action {
        ".UUID" => Some(Some(Part::Uuid)),
        ".Line" => Some(Some(Part::Line)),
        comment if comment.len() >= 4 && comment.starts_with("/*") && comment.ends_with("*/") => Some(None),
        text => raw
            .filter(|raw| !raw.contains('`'))
            .map(str::to_owned)
            .or_else(|| unquote(text))
            .map(|text| Some(Part::Text(text))),
    }
}

fn unknown(action: &str) -> String {
    format!("{{{{{action}}}}}: this action is not supported ({EXPECTED})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str) -> Result<String, String> {
        let mut output = Vec::new();
        Template::parse(template)?.render("<uuid>", b"a line", &mut output);
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn templates_are_filled_in() {
        for (template, expected) in [
            ("{{.UUID}},{{.Line}}\n", "<uuid>,a line\n"),
            ("{{ .Line }}|{{\t.UUID}}", "a line|<uuid>"),
            (r#"{"uuid": "{{.UUID}}","record":{{.Line}}}"#, r#"{"uuid": "<uuid>","record":a line}"#),
            (r#"{{.Line}}\n{{"\n\u00e9 }}"}}{{`\n{{`}}"#, "a line\\n\né }}\\n{{"),
            ("a  {{- .Line -}}  b {{- /* nothing */ -}} c", "aa linebc"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(rendered(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn other_actions_are_refused_by_name() {
        for (template, problem) in [
            ("{{.Line", "{{.Line: the action is not closed by }}"),
            ("{{.Other}} x", "{{.Other}}: this action is not supported (expected {{.UUID}}"),
            ("{{if .Line}}x{{end}}", "{{if .Line}}: this action"),
            ("{{.Line | printf \"%q\"}}", "{{.Line | printf \"%q\"}}: this action"),
            ("{{}}", "{{}}: this action"),
            ("{{\"\\q\"}}", "{{\"\\q\"}}: this action"),
        ] {
            let error = rendered(template).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
