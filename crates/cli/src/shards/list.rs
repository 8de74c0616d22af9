//! `courant shards list`: lists shards, their status and where they are.

use super::ShardSession;
use crate::output::{Format, print, print_table};
use crate::render;
use crate::session::parse_selector;
use crate::table::Table;
use client::ReadError;
use client::specs::ShardSet;
use proto::consumer::{ListResponse, StatRequest, list_response};
use proto::protocol::ReadRequest;
use proto::{canonical, labels};
use runtime::BoxError;
use std::collections::BTreeMap;

/// Options.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Which shards: labels to have or not to have, such as `id:prefix=summer/, !deprecated`. Without it, all.
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// How they are printed; JSON is one shard a line.
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    format: Format,
    /// Labels to show as columns of the table.
    #[arg(long, short = 'L', value_name = "LABEL")]
    label_columns: Vec<String>,
    /// Show the primary of each shard.
    #[arg(long, short = 'p')]
    primary: bool,
    /// Show the processes of each shard.
    #[arg(long, short = 'r')]
    replicas: bool,
    /// Show how many replicas each shard wants.
    #[arg(long)]
    rf: bool,
    /// Show how many bytes of its sources each shard has not read.
    #[arg(long)]
    lag: bool,
}

/// Runs the command.
pub async fn run(session: &ShardSession, args: ListArgs) -> Result<(), BoxError> {
    let list = session.list(parse_selector(&args.selector)?).await?;
    let text = match args.format {
        Format::Table => {
            let lags = if args.lag { lags(session, &list).await? } else { Vec::new() };
            return Ok(print_table(&table(&list, &args, &lags))?);
        }
        Format::Yaml if list.shards.is_empty() => String::new(),
        Format::Yaml => ShardSet::from_list(&list).to_yaml()?,
        Format::Json => {
            let shards = canonical(list).shards.into_iter();
            let lines = shards.map(|shard| render::json(&shard, "consumer.ListResponse.Shard"));
            lines.collect::<Result<String, _>>()?
        }
        Format::Proto => render::text(&list, "consumer.ListResponse")?,
    };
    Ok(print(&text)?)
}

/// The highest status of the shard's replicas.
pub fn status_text(shard: &list_response::Shard) -> &'static str {
    let highest = shard.status.iter().map(|status| status.code()).max();
    highest.map_or("<none>", |code| code.as_str_name())
}

fn table(list: &ListResponse, args: &ListArgs, lags: &[String]) -> Table {
    let optional = [(args.rf, "RF"), (args.primary, "PRIMARY"), (args.replicas, "REPLICAS")];
    let mut headers = vec!["ID".to_owned(), "STATUS".to_owned()];
    headers.extend(optional.into_iter().filter(|(shown, _)| *shown).map(|(_, header)| header.to_owned()));
    headers.extend(args.label_columns.iter().cloned());
    headers.extend(args.lag.then(|| "LAG".to_owned()));
    let mut table = Table::new(headers);
    for (i, shard) in list.shards.iter().enumerate() {
        let mut cells = row(shard, args);
        cells.extend(args.lag.then(|| lags.get(i).cloned().unwrap_or_default()));
        table.row(cells);
    }
    table
}

fn row(shard: &list_response::Shard, args: &ListArgs) -> Vec<String> {
    let spec = shard.spec.clone().unwrap_or_default();
    let route = shard.route.clone().unwrap_or_default();
    let replica = |index: usize| {
        let member = route.members.get(index)?;
        let code = shard.status.get(index).map_or("<none>", |status| status.code().as_str_name());
        Some(format!("{}:{code}", member.suffix))
    };
    let mut cells = vec![spec.id.clone(), status_text(shard).to_owned()];
    if args.rf {
        cells.push(spec.desired_replication(u32::MAX).to_string());
    }
    if args.primary {
        cells.push(usize::try_from(route.primary).ok().and_then(replica).unwrap_or_default());
    }
    if args.replicas {
        cells.push((0..route.members.len()).filter_map(replica).collect::<Vec<_>>().join(","));
    }
    let value = |name: &String| match name.as_str() {
        labels::ID => spec.id.clone(),
        name => spec.label_set().values_of(name).collect::<Vec<_>>().join(","),
    };
    cells.extend(args.label_columns.iter().map(value));
    cells
}

/// Of each shard, `journal:bytes` of its sources: the journal's end less what the shard has read through.
async fn lags(session: &ShardSession, list: &ListResponse) -> Result<Vec<String>, BoxError> {
    let mut heads = BTreeMap::new();
    let mut lags = Vec::new();
    for shard in &list.shards {
        let spec = shard.spec.clone().unwrap_or_default();
        let has_primary = shard.route.as_ref().is_some_and(|route| route.primary_id().is_some());
        if !has_primary {
            lags.push(String::new());
            continue;
        }
        let request = StatRequest { shard: spec.id.clone(), ..Default::default() };
        let stat = session.request(format!("stat of {}", spec.id), session.shards.stat(request)).await?;
        let mut lag = Vec::new();
        for source in &spec.sources {
            let bare = source.journal.split(';').next().unwrap_or_default();
            let head = match heads.get(bare) {
                Some(head) => *head,
                None => write_head(session, bare).await?,
            };
            heads.insert(bare.to_owned(), head);
            let read = stat.read_through.get(&source.journal).copied().unwrap_or(0);
            lag.push(format!("{}:{}", source.journal, (head - read).max(0)));
        }
        lags.push(lag.join(","));
    }
    Ok(lags)
}

async fn write_head(session: &ShardSession, journal: &str) -> Result<i64, BoxError> {
    let request =
        ReadRequest { journal: journal.into(), offset: -1, metadata_only: true, ..Default::default() };
    let mut reader = session.session.client.read(request);
    let read = async {
        match reader.next().await {
            Ok(_) | Err(ReadError::NotYetAvailable { .. } | ReadError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    };
    session.session.request(format!("reading the end of {journal}"), read).await?;
    Ok(reader.write_head())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::consumer::{ReplicaStatus, ShardSpec, replica_status::Code};
    use proto::protocol::{LabelSet, Route, process_spec::Id};

    #[test]
    fn tables_show_what_was_asked_for() {
        let args = ListArgs {
            selector: String::new(),
            format: Format::Table,
            label_columns: vec!["app".into()],
            primary: true,
            replicas: true,
            rf: true,
            lag: true,
        };
        let id = |suffix: &str| Id { zone: "local".into(), suffix: suffix.into() };
        let assigned = list_response::Shard {
            spec: Some(ShardSpec {
                id: "shard-0".into(),
                hot_standbys: 1,
                labels: Some(LabelSet::from_pairs([("app", "summer")])),
                ..Default::default()
            }),
            route: Some(Route { members: vec![id("red-fox"), id("sly-owl")], primary: 1, endpoints: vec![] }),
            status: vec![ReplicaStatus::new(Code::Standby), ReplicaStatus::new(Code::Primary)],
            ..Default::default()
        };
        let unassigned = list_response::Shard {
            spec: Some(ShardSpec { id: "shard-1".into(), disable: true, ..Default::default() }),
            route: Some(Route::unrouted()),
            ..Default::default()
        };
        let list = ListResponse { shards: vec![assigned, unassigned], ..Default::default() };
        expect_test::expect![[r#"
            ID       STATUS   RF  PRIMARY          REPLICAS                         app     LAG
            shard-0  PRIMARY  2   sly-owl:PRIMARY  red-fox:STANDBY,sly-owl:PRIMARY  summer  a/b:7
            shard-1  <none>   0   <none>           <none>                           <none>  <none>
        "#]]
        .assert_eq(&table(&list, &args, &["a/b:7".to_owned(), String::new()]).render(None));
    }
}
