//! The parser of templates: text to [`Node`]s. Recursion is bounded by [`DEPTH_MAX`].

use super::TemplateError;

/// Deepest nesting of parentheses.
const DEPTH_MAX: usize = 32;
/// Functions which Go predefines. Of these only `print` and `printf` can be evaluated.
const GO_FUNCTIONS: [&str; 20] = [
    "and", "call", "html", "index", "slice", "js", "len", "not", "or", "print", "printf", "println",
    "urlquery", "eq", "ge", "gt", "le", "lt", "ne", "nil",
];
/// Words which begin an action that is not a pipeline.
const GO_KEYWORDS: [&str; 10] =
    ["if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"];

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Literal text.
    Text(String),
    /// `{{ pipeline }}`.
    Action(Pipeline),
}

/// Commands joined by `|`; the value of each is the last argument of the next. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pipeline(pub(super) Vec<Command>);

/// A term and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) callee: Term,
    pub(super) arguments: Vec<Term>,
}

/// An operand and the fields or methods chained to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) operand: Operand,
    pub(super) chain: Vec<String>,
}

/// Where a term begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// `.` or `$`.
    Root,
    /// A quoted or raw string.
    Str(String),
    /// A number or character.
    Int(i64),
    /// `true` or `false`.
    Bool(bool),
    /// A predefined function.
    Function(String),
    /// `( pipeline )`.
    Group(Box<Pipeline>),
}

/// Parses a whole template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut nodes = Vec::new();
    let mut parser = Parser { text, at: 0, depth: 0 };
    let mut trim_start = false;
    loop {
        let rest = parser.rest();
        let length = rest.find("{{").unwrap_or(rest.len());
        let is_last = length == rest.len();
        let mut literal = &rest[..length];
        parser.at += length;
        let trim_end = !is_last && parser.open_action();
        if trim_start {
            literal = literal.trim_start_matches(is_space);
        }
        if trim_end {
            literal = literal.trim_end_matches(is_space);
        }
        if !literal.is_empty() {
            nodes.push(Node::Text(literal.to_owned()));
        }
        if is_last {
            return Ok(nodes);
        }
        nodes.extend(parser.action()?.map(Node::Action));
        trim_start = parser.close_action()?;
    }
}

/// Go's notion of space within templates.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_name_char(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Skips spaces; whether there were any.
    fn skip_space(&mut self) -> bool {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches(is_space);
        self.at += rest.len() - trimmed.len();
        trimmed.len() < rest.len()
    }

    fn syntax<T>(&self, problem: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::Syntax { at: self.at, problem: problem.into() })
    }

    /// Takes `{{` and a trim marker: whether the text before is trimmed.
    fn open_action(&mut self) -> bool {
        self.at += 2;
        let mut after = self.rest().chars();
        let trims = after.next() == Some('-') && after.next().is_some_and(is_space);
        if trims {
            self.at += 1;
        }
        trims
    }

    /// Takes `}}` or ` -}}`: whether the text after is trimmed.
    fn close_action(&mut self) -> Result<bool, TemplateError> {
        self.skip_space();
        if self.text[..self.at].ends_with(is_space) && self.eat("-}}") {
            return Ok(true);
        }
        if self.eat("}}") {
            return Ok(false);
        }
        match self.peek() {
            None => self.syntax("unclosed action"),
            Some(c) => self.syntax(format!("unexpected {c:?} in action")),
        }
    }

    fn at_close(&self) -> bool {
        self.rest().starts_with("}}") || self.rest().starts_with("-}}")
    }

    /// The pipeline of an action, or none of a comment.
    fn action(&mut self) -> Result<Option<Pipeline>, TemplateError> {
        self.skip_space();
        if self.eat("/*") {
            let Some(length) = self.rest().find("*/") else { return self.syntax("unclosed comment") };
            self.at += length + 2;
            return Ok(None);
        }
        let word: String = self.rest().chars().take_while(|&c| is_name_char(c)).collect();
        if GO_KEYWORDS.contains(&word.as_str()) {
            return Err(TemplateError::Unsupported { what: format!("the action {word:?}") });
        }
        self.pipeline().map(Some)
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let mut commands = vec![self.command(false)?];
        while self.eat("|") {
            commands.push(self.command(true)?);
        }
        Ok(Pipeline(commands))
    }

    /// A term and the space-separated terms after it, up to `|`, `)` or the end of the action, which is not taken.
    fn command(&mut self, piped: bool) -> Result<Command, TemplateError> {
        self.skip_space();
        let start = self.at;
        let callee = self.term()?;
        let mut arguments = Vec::new();
        loop {
            let spaced = self.skip_space();
            let ends = self.at_close() || self.peek().is_none_or(|c| matches!(c, '|' | ')'));
            if ends {
                break;
            }
            if self.rest().starts_with(":=") || self.rest().starts_with('=') || self.rest().starts_with(',') {
                return Err(TemplateError::Unsupported { what: "a variable".to_owned() });
            }
            if !spaced {
                return self.syntax(format!("unexpected {:?} in operand", self.peek().unwrap_or_default()));
            }
            arguments.push(self.term()?);
        }
        let is_call = !callee.chain.is_empty() || matches!(callee.operand, Operand::Function(_));
        if !is_call && (piped || !arguments.is_empty()) {
            self.at = start;
            return self.syntax("what is not a function or method is given arguments");
        }
        Ok(Command { callee, arguments })
    }

    fn term(&mut self) -> Result<Term, TemplateError> {
        let operand = self.operand()?;
        let mut chain = Vec::new();
        // A root's first field follows its own dot; every later one a dot of its own.
        if operand == Operand::Root && self.text[..self.at].ends_with('.') {
            chain.extend(self.name());
        }
        while self.rest().starts_with('.') {
            match operand {
                Operand::Root | Operand::Group(_) => {}
                _ => return self.syntax("unexpected '.' after a literal or function"),
            }
            self.at += 1;
            match self.name() {
                Some(name) => chain.push(name),
                None => return self.syntax("expected a field name after '.'"),
            }
        }
        Ok(Term { operand, chain })
    }

    /// A name at the current position.
    fn name(&mut self) -> Option<String> {
        let name: String = self.rest().chars().take_while(|&c| is_name_char(c)).collect();
        self.at += name.len();
        Some(name).filter(|name| !name.is_empty())
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let start = self.at;
        match self.peek() {
            Some('(') => self.group(),
            Some('"') => self.quoted(),
            Some('`') => {
                self.at += 1;
                let Some(length) = self.rest().find('`') else {
                    return self.syntax("unterminated raw string");
                };
                let raw = self.rest()[..length].replace('\r', "");
                self.at += length + 1;
                Ok(Operand::Str(raw))
            }
            Some('\'') => Err(TemplateError::Unsupported { what: "a character constant".to_owned() }),
            Some('.') if !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.at += 1;
                Ok(Operand::Root)
            }
            Some('$') => {
                self.at += 1;
                match self.name() {
                    None => Ok(Operand::Root),
                    Some(name) => Err(TemplateError::Unsupported { what: format!("the variable ${name}") }),
                }
            }
            Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(),
            Some(c) if is_name_char(c) => self.word(),
            Some(c) => self.syntax(format!("unexpected {c:?}")),
            None => {
                self.at = start;
                self.syntax("unclosed action")
            }
        }
    }

    fn group(&mut self) -> Result<Operand, TemplateError> {
        if self.depth == DEPTH_MAX {
            return Err(TemplateError::Unsupported { what: format!("nesting deeper than {DEPTH_MAX}") });
        }
        self.at += 1;
        self.depth += 1;
        let inner = self.pipeline()?;
        self.depth -= 1;
        if !self.eat(")") {
            return self.syntax("unclosed '('");
        }
        Ok(Operand::Group(Box::new(inner)))
    }

    fn word(&mut self) -> Result<Operand, TemplateError> {
        let start = self.at;
        let word = self.name().unwrap_or_default();
        match word.as_str() {
            "true" => Ok(Operand::Bool(true)),
            "false" => Ok(Operand::Bool(false)),
            "print" | "printf" => Ok(Operand::Function(word)),
            _ if GO_FUNCTIONS.contains(&word.as_str()) || GO_KEYWORDS.contains(&word.as_str()) => {
                Err(TemplateError::Unsupported { what: format!("the function {word:?}") })
            }
            _ => {
                self.at = start;
                self.syntax(format!("function {word:?} is not defined"))
            }
        }
    }

    fn number(&mut self) -> Result<Operand, TemplateError> {
        let part_of_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
        let text = self.rest().split(|c| !part_of_number(c)).next().unwrap_or_default();
        let is_plain = !text.trim_start_matches(['+', '-']).starts_with('0') || text.len() == 1;
        match text.parse() {
            Ok(number) if is_plain => {
                self.at += text.len();
                Ok(Operand::Int(number))
            }
            _ => Err(TemplateError::Unsupported { what: format!("the number {text:?}") }),
        }
    }

    fn quoted(&mut self) -> Result<Operand, TemplateError> {
        let start = self.at;
        self.at += 1;
        let mut value = String::new();
        loop {
            let Some(c) = self.peek().filter(|&c| c != '\n') else {
                self.at = start;
                return self.syntax("unterminated quoted string");
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(Operand::Str(value)),
                '\\' => value.push(self.escape()?),
                c => value.push(c),
            }
        }
    }

    /// The character of an escape, whose backslash is taken.
    fn escape(&mut self) -> Result<char, TemplateError> {
        let Some(c) = self.peek() else { return self.syntax("unterminated quoted string") };
        let simple = match c {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '\\' | '"' => c,
            'x' | 'u' | 'U' | '0'..='7' => {
                return Err(TemplateError::Unsupported { what: format!("the escape \"\\{c}\"") });
            }
            _ => return self.syntax(format!("unknown escape \"\\{c}\"")),
        };
        self.at += c.len_utf8();
        Ok(simple)
    }
}
