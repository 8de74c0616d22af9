//! `courant journals list`: lists journals and where they are.

use crate::output::{Format, print, print_table};
use crate::render;
use crate::session::{Session, parse_selector};
use crate::table::Table;
use client::WatchedList;
use client::specs::JournalNode;
use proto::protocol::journal_spec::suspend::Level;
use proto::protocol::{ListResponse, list_response};
use proto::{canonical, labels};
use runtime::BoxError;

/// Options.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Which journals: labels to have or not to have, such as `name:prefix=examples/, !deprecated`. Without it, all.
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// How they are printed; JSON is one journal a line.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    format: Format,
    /// Labels to show as columns of the table.
    #[arg(long, short = 'L', value_name = "LABEL")]
    label_columns: Vec<String>,
    /// Show the primary broker of each journal.
    #[arg(long, short = 'p')]
    primary: bool,
    /// Show the brokers of each journal.
    #[arg(long, short = 'r')]
    replicas: bool,
    /// Show how many replicas each journal wants.
    #[arg(long)]
    rf: bool,
    /// Show where each journal stores its fragments.
    #[arg(long)]
    stores: bool,
    /// List again whenever something changes.
    #[arg(long)]
    watch: bool,
}

/// Runs the command.
pub async fn run(session: &Session, args: ListArgs) -> Result<(), BoxError> {
    let selector = parse_selector(&args.selector)?;
    if !args.watch {
        let list = session.request("listing journals", session.client.list(selector)).await?;
        return print_listing(&list, &args);
    }
    let mut list = WatchedList::start(session.client.clone(), selector, &session.tasks)?;
    loop {
        print_listing(&*list.changed().await?, &args)?;
    }
}

fn print_listing(list: &ListResponse, args: &ListArgs) -> Result<(), BoxError> {
    let text = match args.format {
        Format::Table => return Ok(print_table(&table(list, args))?),
        Format::Yaml if list.journals.is_empty() => String::new(),
        Format::Yaml => JournalNode::from_list(list).to_yaml()?,
        Format::Json => {
            let journals = canonical(list.clone()).journals.into_iter();
            let lines = journals.map(|journal| render::json(&journal, "protocol.ListResponse.Journal"));
            lines.collect::<Result<String, _>>()?
        }
        Format::Proto => render::text(list, "protocol.ListResponse")?,
    };
    Ok(print(&text)?)
}

fn table(list: &ListResponse, args: &ListArgs) -> Table {
    let optional =
        [(args.rf, "RF"), (args.primary, "PRIMARY"), (args.replicas, "REPLICAS"), (args.stores, "STORES")];
    let shown = optional.into_iter().filter(|(shown, _)| *shown).map(|(_, header)| header.to_owned());
    let headers = std::iter::once("NAME".to_owned()).chain(shown).chain(args.label_columns.iter().cloned());
    let mut table = Table::new(headers);
    for journal in &list.journals {
        table.row(row(journal, args));
    }
    table
}

fn row(journal: &list_response::Journal, args: &ListArgs) -> Vec<String> {
    let spec = journal.spec.clone().unwrap_or_default();
    let mut cells = vec![spec.name.clone()];
    if args.rf {
        cells.push(spec.replication.to_string());
    }
    if args.primary {
        let primary = journal.route.as_ref().and_then(|r| r.primary_id()).map_or("<none>", |id| &id.suffix);
        let suspended = if spec.suspend_level() == Level::None { "" } else { " <S>" };
        cells.push(format!("{primary}{suspended}"));
    }
    if args.replicas {
        let members = journal.route.iter().flat_map(|route| &route.members);
        cells.push(members.map(|id| id.suffix.as_str()).collect::<Vec<_>>().join(","));
    }
    if args.stores {
        cells.push(spec.fragment().stores.first().cloned().unwrap_or_default());
    }
    let labels = spec.label_set();
    let value = |name: &String| match name.as_str() {
        labels::NAME => spec.name.clone(),
        name => labels.values_of(name).collect::<Vec<_>>().join(","),
    };
    cells.extend(args.label_columns.iter().map(value));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::protocol::{JournalSpec, LabelSet, Route, journal_spec, process_spec::Id};

    fn args() -> ListArgs {
        ListArgs {
            selector: String::new(),
            format: Format::Table,
            label_columns: vec!["app".into()],
            primary: true,
            replicas: true,
            rf: true,
            stores: true,
            watch: false,
        }
    }

    #[test]
    fn tables_show_what_was_asked_for() {
        let id = |suffix: &str| Id { zone: "local".into(), suffix: suffix.into() };
        let assigned = list_response::Journal {
            spec: Some(JournalSpec {
                name: "a/one".into(),
                replication: 2,
                labels: Some(LabelSet::from_pairs([("app", "x"), ("app", "y")])),
                fragment: Some(journal_spec::Fragment {
                    stores: vec!["file:///".into()],
                    ..Default::default()
                }),
                suspend: Some(journal_spec::Suspend { level: 1, offset: 0 }),
                ..Default::default()
            }),
            route: Some(Route { members: vec![id("red-fox"), id("sly-owl")], primary: 1, endpoints: vec![] }),
            ..Default::default()
        };
        let unassigned = list_response::Journal {
            spec: Some(JournalSpec { name: "a/two".into(), replication: 1, ..Default::default() }),
            route: Some(Route::unrouted()),
            ..Default::default()
        };
        let list = ListResponse { journals: vec![assigned, unassigned], ..Default::default() };
        expect_test::expect![[r#"
            NAME   RF  PRIMARY      REPLICAS         STORES    app
            a/one  2   sly-owl <S>  red-fox,sly-owl  file:///  x,y
            a/two  1   <none>       <none>           <none>    <none>
        "#]]
        .assert_eq(&table(&list, &args()).render(None));
        let plain = ListArgs {
            label_columns: vec![],
            primary: false,
            replicas: false,
            rf: false,
            stores: false,
            ..args()
        };
        assert_eq!(table(&list, &plain).render(None), "NAME\na/one\na/two\n");
    }
}
