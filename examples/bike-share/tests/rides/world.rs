//! Rides of bikes around a loop of stations, and what is to come of them.

use std::sync::Arc;
use std::time::Duration;

use bike_share::{Cycle, CycleStep, RIDE_TYPE};
use client::{Publisher, WatchedList};
use message::csv::{self, CsvRecord};
use message::mapping::Partitions;
use message::{Message, Uuid};
use proto::labels;
use proto::protocol::{AppendRequest, LabelSelector};
use reqwest::header::HeaderMap;
use reqwest::{Client, StatusCode};
use runtime::{Clock, TaskGroup};
use serde_json::{Value, json};
use testkit::{TestBroker, TestConsumer};

pub const JOURNALS: &str = include_str!("../../journals.yaml");

/// Stations of the loop: rides around it are the shortest cycle which is told.
const STATIONS: u64 = 11;

/// The ride number `number` of a bike. Each begins where the one before ended.
fn fields(bike: u64, number: u64) -> Vec<String> {
    let time = |minutes: &str| format!("2019-10-{:02} {:02}:{minutes}:00.5", 1 + number / 24, number % 24);
    let station = |number: u64| {
        let id = number % STATIONS;
        [id.to_string(), format!("\"{id}\", Main Street"), "40.5".to_owned(), "-73.5".to_owned()]
    };
    let mut fields = vec![Uuid::default().to_string(), "600".to_owned(), time("00"), time("10")];
    fields.extend(station(number));
    fields.extend(station(number + 1));
    fields.extend([bike.to_string().as_str(), "Subscriber", "1969", "1"].map(str::to_owned));
    fields
}

pub fn ride(bike: u64, number: u64) -> CsvRecord {
    CsvRecord::new(fields(bike, number)).unwrap()
}

/// As [`ride`], with another text in one column.
pub fn ride_with(bike: u64, number: u64, column: usize, text: &str) -> CsvRecord {
    let mut fields = fields(bike, number);
    fields[column] = text.to_owned();
    CsvRecord::new(fields).unwrap()
}

fn shown_time(number: u64, minutes: &str) -> String {
    format!("2019-10-{:02}T{:02}:{minutes}:00.5Z", 1 + number / 24, number % 24)
}

fn shown_station(number: u64) -> String {
    format!("\"{}\", Main Street", number % STATIONS)
}

/// What the API says of a bike after `rides` rides, but for their UUIDs.
pub fn expected_rides(rides: u64) -> Vec<Value> {
    let ride = |number| {
        json!({
            "StartTime": shown_time(number, "00"), "EndTime": shown_time(number, "10"),
            "StartStation": shown_station(number), "EndStation": shown_station(number + 1),
        })
    };
    (0..rides).rev().take(20).map(ride).collect()
}

/// The cycles of a bike after `rides` rides, but for their UUIDs.
pub fn expected_cycles(bike: u64, rides: u64) -> Vec<Cycle> {
    let cycle = |last: u64| {
        let first = last + 1 - STATIONS;
        let starts = (first..=last).map(|number| (shown_time(number, "00"), shown_station(number)));
        let steps = starts.chain([(shown_time(last, "10"), shown_station(last + 1))]);
        let steps = steps.map(|(time, station)| CycleStep { time, station }).collect();
        Cycle { uuid: Uuid::default(), bike_id: bike, steps }
    };
    (STATIONS - 1..rides).map(cycle).collect()
}

/// Publishes to the journals of rides.
pub struct Rides {
    publisher: Publisher,
    partitions: Arc<Partitions>,
}

impl Rides {
    pub async fn new(broker: &TestBroker) -> Rides {
        let tasks = TaskGroup::new("rides");
        let selector = LabelSelector::include([(labels::MESSAGE_TYPE, RIDE_TYPE)]);
        let list = WatchedList::start(broker.client().unwrap(), selector, &tasks).unwrap();
        list.wait_until(|list| list.journals.len() == 4).await.unwrap();
        tasks.cancel();
        Rides { publisher: broker.publisher().unwrap(), partitions: list.partitions() }
    }

    /// The journal of a bike's rides.
    pub fn journal(&self, bike: u64) -> String {
        self.partitions.modulo(bike.to_string().as_bytes()).unwrap().journal.to_string()
    }

    /// Publishes to the journal of a bike.
    pub async fn publish(&self, bike: u64, ride: CsvRecord) {
        let target = self.partitions.modulo(bike.to_string().as_bytes()).unwrap();
        self.publisher.publish_committed(|_| Ok(target.clone()), ride).unwrap().await.unwrap();
    }

    /// Appends bytes as they are.
    pub async fn append(&self, journal: &str, bytes: &[u8]) {
        let request = AppendRequest { journal: journal.to_owned(), ..AppendRequest::default() };
        let mut slot = self.publisher.appends().start_append(request, Vec::new());
        let Ok(()) = slot.write_with(|content| {
            content.extend_from_slice(bytes);
            Ok::<(), std::convert::Infallible>(())
        });
        slot.release().await.unwrap();
    }

    /// Appends every ride of a journal once more, as a writer does which does not know that it has done so.
    pub async fn repeat(&self, broker: &TestBroker, journal: &str) {
        let mut lines = Vec::new();
        for record in broker.committed::<CsvRecord>(journal).await.unwrap() {
            assert_ne!(record.uuid(), Uuid::default());
            csv::encode(record.fields(), &mut lines);
        }
        self.append(journal, &lines).await;
    }
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

/// Asks a member.
pub async fn get(member: &TestConsumer, path: &str, headers: &[(&str, &str)]) -> Answer {
    let http = Client::builder().no_proxy().build().unwrap();
    let mut request = http.get(format!("{}{path}", member.endpoint()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    Answer { status, headers, text: answer.text().await.unwrap() }
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// The rides that it lists, but for their UUIDs, which tell them apart.
    pub fn rides(&self) -> Vec<Value> {
        assert_eq!(
            (self.status, self.header("content-type")),
            (StatusCode::OK, "application/x-ndjson"),
            "{self:?}"
        );
        let mut rides: Vec<Value> =
            self.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let uuids = rides.iter_mut().map(|ride| ride.as_object_mut().unwrap().remove("UUID").unwrap());
        let mut uuids: Vec<Uuid> = uuids.map(|uuid| uuid.as_str().unwrap().parse().unwrap()).collect();
        uuids.sort_by_key(|uuid| uuid.0);
        assert!(uuids.windows(2).all(|pair| pair[0] != pair[1]), "{self:?}");
        rides
    }
}

/// What a member says of a bike, once it can. Meanwhile the shard may be moving.
pub async fn answer(member: &TestConsumer, bike: u64) -> Answer {
    let (clock, path) = (Clock::system(), format!("/api/bikes?id={bike}"));
    let answered = async {
        loop {
            let answer = get(member, &path, &[]).await;
            if answer.status == StatusCode::OK {
                return answer;
            }
            println!("not yet: {answer:?}");
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    clock.timeout(Duration::from_secs(60), answered).await.unwrap()
}

/// The last rides of a bike, by way of a member.
pub async fn rides_of(member: &TestConsumer, bike: u64) -> Vec<Value> {
    answer(member, bike).await.rides()
}
