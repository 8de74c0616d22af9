//! The values of templates: their fields, methods and printed forms.

use std::borrow::Cow;

use proto::protocol::{self, JournalSpec, LabelSet, journal_spec};

use super::gotime::GoTime;
use super::{Context, TemplateError};
use crate::{Codec, Fragment};

/// A value, borrowing from the [`Context`].
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Root(&'a Context<'a>),
    Spool(&'a Context<'a>),
    Fragment(&'a protocol::Fragment),
    Spec(&'a JournalSpec),
    SpecFragment(Cow<'a, journal_spec::Fragment>),
    Labels(Cow<'a, LabelSet>),
    Time(GoTime),
    Str(Cow<'a, str>),
    Int(i64),
    Bool(bool),
    /// A number with a name: a month, a weekday, a codec.
    Named(i64, Cow<'static, str>),
}

impl<'a> Value<'a> {
    /// What the value is called in errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Root(_) => "the template's root",
            Value::Spool(_) => "Spool",
            Value::Fragment(_) => "Fragment",
            Value::Spec(_) => "JournalSpec",
            Value::SpecFragment(_) => "JournalSpec.Fragment",
            Value::Labels(_) => "LabelSet",
            Value::Time(_) => "Time",
            Value::Str(_) => "string",
            Value::Int(_) => "number",
            Value::Bool(_) => "boolean",
            Value::Named(..) => "named number",
        }
    }

    /// The field or method `name`, called with `arguments`.
    pub(super) fn select(self, name: &str, arguments: &[Value<'a>]) -> Result<Value<'a>, TemplateError> {
        match (&self, name, arguments) {
            (Value::Time(time), "Format", [Value::Str(layout)]) => return Ok(text(time.format(layout))),
            (Value::Labels(labels), "ValueOf", [Value::Str(label)]) => {
                let first = labels.labels.iter().find(|one| one.name == label.as_ref());
                return Ok(text(first.map(|one| one.value.clone()).unwrap_or_default()));
            }
            (Value::Time(_), "Format", _) | (Value::Labels(_), "ValueOf", _) => {
                let found = arguments.iter().map(Value::kind).collect::<Vec<_>>().join(", ");
                return Err(TemplateError::Arguments {
                    callee: name.to_owned(),
                    expected: "one string",
                    found,
                });
            }
            _ => {}
        }
        let of = self.kind();
        let selected =
            self.field(name)?.ok_or_else(|| TemplateError::NoSuchField { of, name: name.to_owned() })?;
        if !arguments.is_empty() {
            let found = format!("{}", arguments.len());
            return Err(TemplateError::Arguments {
                callee: name.to_owned(),
                expected: "no arguments",
                found,
            });
        }
        Ok(selected)
    }

    /// A field, or a method without arguments. Fields of embedded structs are promoted, as in Go; `.Fragment` of the
    /// root is not, since both embedded structs have one.
    fn field(self, name: &str) -> Result<Option<Value<'a>>, TemplateError> {
        Ok(match (self, name) {
            (Value::Root(context), "Spool") => Some(Value::Spool(context)),
            (Value::Root(context), "JournalSpec") => Some(Value::Spec(context.spec)),
            (Value::Root(_), "Fragment") => None,
            (Value::Root(context), _) => match Value::Spool(context).field(name)? {
                None => Value::Spec(context.spec).field(name)?,
                found => found,
            },
            (Value::Spool(context), "Fragment") => Some(Value::Fragment(context.fragment)),
            (Value::Spool(context), "FirstAppendTime") => {
                Some(Value::Time(context.first_append_time.map_or(GoTime::ZERO, GoTime::from_unix)))
            }
            (Value::Spool(context), "Registers") => Some(Value::Labels(Cow::Borrowed(context.registers))),
            (Value::Spool(context), _) => fragment_field(context.fragment, name)?,
            (Value::Fragment(fragment), _) => fragment_field(fragment, name)?,
            (Value::Spec(spec), _) => spec_field(spec, name)?,
            (Value::SpecFragment(fragment), _) => spec_fragment_field(&fragment, name)?,
            (Value::Labels(_), "Labels" | "ValuesOf") => return unsupported(name),
            (Value::Time(time), _) => time_field(time, name)?,
            (Value::Named(_, text), "String") => Some(Value::Str(text)),
            (Value::Str(text), "String") => Some(Value::Str(text)),
            _ => None,
        })
    }

    /// Appends the form in which an action prints the value.
    pub(super) fn print(&self, out: &mut String) -> Result<(), TemplateError> {
        match self {
            Value::Str(text) | Value::Named(_, text) => out.push_str(text),
            Value::Int(number) => out.push_str(&number.to_string()),
            Value::Bool(value) => out.push_str(&value.to_string()),
            Value::Time(time) => out.push_str(&time.format(GoTime::STRING_LAYOUT)),
            _ => return unsupported(&format!("printing a {}", self.kind())),
        }
        Ok(())
    }
}

fn unsupported<T>(what: &str) -> Result<T, TemplateError> {
    Err(TemplateError::Unsupported { what: what.to_owned() })
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> Value<'a> {
    Value::Str(text.into())
}

fn fragment_field<'a>(
    fragment: &'a protocol::Fragment,
    name: &str,
) -> Result<Option<Value<'a>>, TemplateError> {
    Ok(Some(match name {
        "Journal" => text(fragment.journal.as_str()),
        "Begin" => Value::Int(fragment.begin),
        "End" => Value::Int(fragment.end),
        "ContentLength" => Value::Int(fragment.end.saturating_sub(fragment.begin)),
        "CompressionCodec" => codec(fragment.compression_codec),
        "BackingStore" => text(fragment.backing_store.as_str()),
        "ModTime" => Value::Int(fragment.mod_time),
        "PathPostfix" => text(fragment.path_postfix.as_str()),
        "ContentName" | "ContentPath" => match Fragment::try_from(fragment) {
            Ok(fragment) if name == "ContentName" => text(fragment.content_name()),
            Ok(fragment) => text(fragment.content_path()),
            // Only of the zero values over which templates are checked.
            Err(_) => text(""),
        },
        "Sum" => return unsupported("Sum"),
        _ => return Ok(None),
    }))
}

fn spec_field<'a>(spec: &'a JournalSpec, name: &str) -> Result<Option<Value<'a>>, TemplateError> {
    let labels = || spec.labels.as_ref().map_or_else(Cow::default, Cow::Borrowed);
    Ok(Some(match name {
        "Name" => text(spec.name.as_str()),
        "Replication" => Value::Int(spec.replication.into()),
        "LabelSet" => Value::Labels(labels()),
        "Fragment" => Value::SpecFragment(spec.fragment.as_ref().map_or_else(Cow::default, Cow::Borrowed)),
        "MaxAppendRate" => Value::Int(spec.max_append_rate),
        "Flags" | "Suspend" | "Labels" | "ValuesOf" => return unsupported(name),
        _ => return Ok(None),
    }))
}

fn spec_fragment_field<'a>(
    fragment: &journal_spec::Fragment,
    name: &str,
) -> Result<Option<Value<'a>>, TemplateError> {
    Ok(Some(match name {
        "Length" => Value::Int(fragment.length),
        "CompressionCodec" => codec(fragment.compression_codec),
        "PathPostfixTemplate" => text(fragment.path_postfix_template.clone()),
        "Stores" | "RefreshInterval" | "Retention" | "FlushInterval" => return unsupported(name),
        _ => return Ok(None),
    }))
}

fn time_field<'a>(time: GoTime, name: &str) -> Result<Option<Value<'a>>, TemplateError> {
    Ok(Some(match name {
        "UTC" => Value::Time(time),
        "String" => text(time.format(GoTime::STRING_LAYOUT)),
        "Unix" => Value::Int(time.unix()),
        "UnixMilli" => {
            Value::Int(time.unix().saturating_mul(1_000).saturating_add(time.nanosecond() / 1_000_000))
        }
        "UnixMicro" => {
            Value::Int(time.unix().saturating_mul(1_000_000).saturating_add(time.nanosecond() / 1_000))
        }
        "UnixNano" => Value::Int(time.unix().saturating_mul(1_000_000_000).saturating_add(time.nanosecond())),
        "Year" => Value::Int(time.year()),
        "Month" => Value::Named(time.month(), time.month_name().into()),
        "Day" => Value::Int(time.day()),
        "YearDay" => Value::Int(time.year_day()),
        "Weekday" => Value::Named(time.weekday(), time.weekday_name().into()),
        "Hour" => Value::Int(time.hour()),
        "Minute" => Value::Int(time.minute()),
        "Second" => Value::Int(time.second()),
        "Nanosecond" => Value::Int(time.nanosecond()),
        "IsZero" => Value::Bool(time == GoTime::ZERO),
        "Local" | "In" | "Location" | "Zone" | "Date" | "Clock" | "ISOWeek" | "Add" | "AddDate" | "Sub"
        | "Round" | "Truncate" | "After" | "Before" | "Equal" | "Compare" | "GoString" | "IsDST"
        | "AppendFormat" | "MarshalText" | "MarshalJSON" | "MarshalBinary" => return unsupported(name),
        _ => return Ok(None),
    }))
}

fn codec<'a>(number: i32) -> Value<'a> {
    let name = match Codec::try_from(number) {
        Ok(codec) => codec.to_string().into(),
        Err(_) if number == 0 => "INVALID".into(),
        Err(_) => number.to_string().into(),
    };
    Value::Named(number.into(), name)
}
