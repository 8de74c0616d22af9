//! Cycles: a bike which is back where it was. Pure.

use ::message::Uuid;
use serde::{Deserialize, Serialize};

use crate::ride::{Ride, Trip};

/// Rides of the shortest cycle which is told.
const RIDES_MIN: usize = 11;

/// A bike came back to a station where it had been, by rides each of which began where the one before had ended. A line of
/// JSON in its journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cycle {
    /// Stamped by the publisher.
    #[serde(rename = "UUID")]
    pub uuid: Uuid,
    /// The bike.
    #[serde(rename = "BikeID")]
    pub bike_id: u64,
    /// Where the bike was, in order: one more than rides. The last one is where the first one is.
    pub steps: Vec<CycleStep>,
}

/// A station, and when the bike was there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CycleStep {
    /// When it left or, of the last step, arrived: as of RFC 3339.
    pub time: String,
    /// Name of the station.
    pub station: String,
}

impl Cycle {
    /// The cycle which a ride completes, if it does. `trips` are the last ones of its bike, the very last one first.
    pub(crate) fn completed_by(ride: &Ride, trips: &[Trip]) -> Option<Cycle> {
        let last = trips.first()?;
        let links = trips.windows(2).take_while(|pair| pair[1].end_station_id == pair[0].start_station_id);
        let linked = &trips[..=links.count()];
        let back = linked.iter().position(|trip| trip.start_station_id == last.end_station_id)?;
        let cycle = &linked[..=back];
        // A ride which comes late may be no part of it; then the cycle is known already.
        if cycle.len() < RIDES_MIN || cycle.iter().all(|trip| trip.uuid != ride.uuid()) {
            return None;
        }
        let step =
            |time: &str, station: &str| CycleStep { time: time.to_owned(), station: station.to_owned() };
        let starts = cycle.iter().rev().map(|trip| step(&trip.start_time, &trip.start_station));
        let steps = starts.chain([step(&last.end_time, &last.end_station)]).collect();
        Some(Cycle { uuid: Uuid::default(), bike_id: ride.bike_id(), steps })
    }
}

::message::json_message!(Cycle);

#[cfg(test)]
mod tests {
    use super::*;
    use ::message::csv::CsvRecord;
    use ::message::{Framing, Message};

    const BIKE: u64 = 17827;

    fn uuid(number: usize) -> String {
        format!("{number:08x}-0000-1000-8000-010203040506")
    }

    /// The ride number `number` of the bike, counted from the last one.
    fn ride(number: usize) -> Ride {
        let mut fields = vec![String::new(); 16];
        fields[0] = uuid(number);
        (fields[2], fields[3]) = ("2019-10-01 00:00:00".to_owned(), "2019-10-01 01:00:00".to_owned());
        fields[12] = BIKE.to_string();
        Ride::of_record(&CsvRecord::new(fields).unwrap()).unwrap()
    }

    /// Rides along stations, each a letter: the last one comes first.
    fn trips(stations: &str) -> Vec<Trip> {
        let stations: Vec<String> = stations.chars().map(String::from).collect();
        let rides = stations.len().saturating_sub(1);
        let time = |hour: usize| format!("2019-10-01T{hour:02}:00:00Z");
        let trip = |hour: usize| Trip {
            uuid: uuid(rides - 1 - hour),
            start_time: time(hour),
            end_time: time(hour + 1),
            start_station: stations[hour].clone(),
            end_station: stations[hour + 1].clone(),
            start_station_id: format!("id of {}", stations[hour]),
            end_station_id: format!("id of {}", stations[hour + 1]),
        };
        (0..rides).rev().map(trip).collect()
    }

    /// The stations of the cycle which a ride completes.
    fn found(number: usize, trips: &[Trip]) -> Option<String> {
        let cycle = Cycle::completed_by(&ride(number), trips)?;
        Some(cycle.steps.into_iter().map(|step| step.station).collect())
    }

    #[test]
    fn a_cycle_is_the_way_back_to_where_the_bike_is() {
        for (stations, expected) in [
            ("ABCDEFGHIJKA", Some("ABCDEFGHIJKA")),
            ("ABCDEFGHIJKLMNOPQRSTA", Some("ABCDEFGHIJKLMNOPQRSTA")),
            // It was elsewhere before.
            ("XYABCDEFGHIJKA", Some("ABCDEFGHIJKA")),
            // It may come through other stations more than once.
            ("ABBCBDEFGHIA", Some("ABBCBDEFGHIA")),
            // It was there in between, and so the way is shorter: too short.
            ("ABCDEAFGHIJKA", None),
            ("ABCDEFGHIJKAA", None),
            // Ten rides.
            ("ABCDEFGHIJA", None),
            ("AA", None),
            // No way back.
            ("ABCDEFGHIJKL", None),
            ("", None),
        ] {
            assert_eq!(found(0, &trips(stations)).as_deref(), expected, "{stations}");
        }
    }

    #[test]
    fn a_ride_which_comes_late_completes_what_it_is_part_of() {
        let trips = trips("XYABCDEFGHIJKA");
        for number in 0..trips.len() {
            let is_part = number < 11;
            assert_eq!(found(number, &trips).is_some(), is_part, "{number}");
        }
    }

    #[test]
    fn a_bike_which_was_moved_has_no_way_back() {
        let cycle = trips("ABCDEFGHIJKA");
        for moved in 0..cycle.len() {
            let mut trips = cycle.clone();
            trips[moved].end_station_id = "elsewhere".to_owned();
            assert_eq!(found(0, &trips), None, "{moved}");
        }
        // Stations are told apart by their ids, not by their names.
        let mut trips = cycle;
        trips[0].end_station = "*".to_owned();
        assert_eq!(found(0, &trips).unwrap(), "ABCDEFGHIJK*");
    }

    #[test]
    fn a_cycle_has_its_golden_line() {
        let mut cycle = Cycle::completed_by(&ride(0), &trips("ABCDEFGHIJKA")).unwrap();
        assert_eq!(cycle.steps.len(), 12);
        cycle.steps.drain(1..11);
        cycle.set_uuid("0000000a-0000-1000-8000-010203040506".parse().unwrap());
        let mut line = Vec::new();
        cycle.encode(Framing::Json, &mut line).unwrap();
        let expected = "{\"UUID\":\"0000000a-0000-1000-8000-010203040506\",\"BikeID\":17827,\"Steps\":[\
            {\"Time\":\"2019-10-01T00:00:00Z\",\"Station\":\"A\"},{\"Time\":\"2019-10-01T11:00:00Z\",\"Station\":\"A\"}]}\n";
        assert_eq!(String::from_utf8(line).unwrap(), expected);
        let mut read = Cycle::default();
        read.decode(Framing::Json, expected.trim_end().as_bytes()).unwrap();
        assert_eq!(read, cycle);
        assert!(cycle.encode(Framing::Csv, &mut Vec::new()).is_err());
        assert!(read.decode(Framing::Csv, b"a,b").is_err());
    }
}
