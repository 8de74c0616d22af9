//! Evaluation of pipelines over a [`Context`].

use super::parse::{Command, Operand, Pipeline, Term};
use super::value::Value;
use super::{Context, TemplateError, printf};

/// The value of `pipeline`.
pub(super) fn pipeline<'a>(
    context: &'a Context<'a>,
    pipeline: &Pipeline,
) -> Result<Value<'a>, TemplateError> {
    let mut last = None;
    for command in &pipeline.0 {
        last = Some(call(context, command, last)?);
    }
    Ok(last.expect("the parser makes no empty pipeline"))
}

/// The value of `command`; `piped` is its last argument.
fn call<'a>(
    context: &'a Context<'a>,
    Command { callee, arguments }: &Command,
    piped: Option<Value<'a>>,
) -> Result<Value<'a>, TemplateError> {
    let mut arguments = arguments.iter().map(|one| term(context, one, &[])).collect::<Result<Vec<_>, _>>()?;
    arguments.extend(piped);
    term(context, callee, &arguments)
}

/// The value of `term`, whose last field or function takes `arguments`.
fn term<'a>(
    context: &'a Context<'a>,
    Term { operand, chain }: &Term,
    arguments: &[Value<'a>],
) -> Result<Value<'a>, TemplateError> {
    let mut value = match operand {
        Operand::Root => Value::Root(context),
        Operand::Str(text) => Value::Str(text.clone().into()),
        Operand::Int(number) => Value::Int(*number),
        Operand::Bool(value) => Value::Bool(*value),
        Operand::Group(inner) => pipeline(context, inner)?,
        Operand::Function(name) => Value::Str(printf::call(name, arguments)?.into()),
    };
    for (i, name) in chain.iter().enumerate() {
        let is_last = i + 1 == chain.len();
        value = value.select(name, if is_last { arguments } else { &[] })?;
    }
    Ok(value)
}
