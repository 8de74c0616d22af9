//! `courant journals fragments`: lists the fragments which journals consist of.

use crate::output::{Format, bytes_text, print, print_table};
use crate::render;
use crate::session::{Session, parse_selector};
use crate::table::Table;
use futures::{StreamExt, TryStreamExt};
use proto::canonical;
use proto::duration::from_std;
use proto::protocol::journal_spec::suspend::Level;
use proto::protocol::{FragmentsRequest, FragmentsResponse, fragments_response};
use runtime::BoxError;
use runtime::config::parse_duration;
use std::time::Duration;

/// Journals whose fragments are listed at once.
const JOURNALS_AT_ONCE: usize = 32;

/// Options.
#[derive(Debug, clap::Args)]
pub struct FragmentsArgs {
    /// Which journals: labels to have or not to have, such as `name:prefix=examples/, !deprecated`. Without it, all.
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// How they are printed; JSON is one object a line.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    format: Format,
    /// Leave out what was stored before this time, in seconds since 1970.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    from: i64,
    /// Leave out what was stored after this time, in seconds since 1970; zero leaves out nothing.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    to: i64,
    /// Show URLs which can be read for this long.
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = parse_duration)]
    url_ttl: Duration,
}

/// Runs the command.
pub async fn run(session: &Session, args: FragmentsArgs) -> Result<(), BoxError> {
    let selector = parse_selector(&args.selector)?;
    if args.format == Format::Yaml {
        return Err("--format: fragments cannot be printed as YAML".into());
    }
    let listing = session.request("listing journals", session.client.list(selector)).await?;
    let specs = listing.journals.into_iter().filter_map(|j| j.spec);
    let listed = specs.filter(|spec| spec.suspend_level() != Level::Full).map(|spec| {
        let request = FragmentsRequest {
            journal: spec.name.clone(),
            begin_mod_time: args.from,
            end_mod_time: args.to,
            signature_ttl: (!args.url_ttl.is_zero()).then(|| from_std(args.url_ttl)),
            ..Default::default()
        };
        let what = format!("listing fragments of {}", spec.name);
        session.request(what, session.client.fragments(request))
    });
    let mut listed = futures::stream::iter(listed).buffered(JOURNALS_AT_ONCE);
    let mut all = FragmentsResponse::default();
    while let Some(response) = listed.try_next().await? {
        all.fragments.extend(response.fragments);
    }
    let now = session.clock.unix_now();
    let text = match args.format {
        Format::Table | Format::Yaml => return Ok(print_table(&table(&all, &args, now))?),
        Format::Json => {
            let lines = all
                .fragments
                .into_iter()
                .map(|f| render::json_of_numbers(&canonical(f), "protocol.FragmentsResponse._Fragment"));
            lines.collect::<Result<String, _>>()?
        }
        Format::Proto => render::text(&all, "protocol.FragmentsResponse")?,
    };
    Ok(print(&text)?)
}

fn table(all: &FragmentsResponse, args: &FragmentsArgs, now: Duration) -> Table {
    let mut headers = vec!["JOURNAL", "OFFSET", "LENGTH", "PERSISTED", "SHA1", "COMPRESSION"];
    if !args.url_ttl.is_zero() {
        headers.push("URL");
    }
    let columns = headers.len();
    let mut table = Table::new(headers);
    for fragment in &all.fragments {
        let mut cells = row(fragment, now);
        cells.truncate(columns);
        table.row(cells);
    }
    table
}

fn row(fragment: &fragments_response::Fragment, now: Duration) -> Vec<String> {
    let spec = fragment.spec.clone().unwrap_or_default();
    let persisted = match u64::try_from(spec.mod_time) {
        Ok(0) | Err(_) => String::new(),
        Ok(seconds) => age_text(now.saturating_sub(Duration::from_secs(seconds))),
    };
    vec![
        spec.journal.clone(),
        spec.begin.to_string(),
        bytes_text(u64::try_from(spec.content_length()).unwrap_or(0)),
        persisted,
        format!("{}...", &spec.sum_or_zero().hex()[..12]),
        spec.compression_codec().as_str_name().to_owned(),
        fragment.signed_url.clone(),
    ]
}

/// `5 minutes ago`: the largest unit.
fn age_text(age: Duration) -> String {
    let seconds = age.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    format!("{} ago", crate::output::count_text(usize::try_from(count).unwrap_or(usize::MAX), unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let text = |seconds| age_text(Duration::from_secs(seconds));
        assert_eq!(
            [text(1), text(59), text(60), text(7300), text(200_000)],
            ["1 second ago", "59 seconds ago", "1 minute ago", "2 hours ago", "2 days ago"]
        );
    }
}
