//! A ride, as it comes and as it is shown. Pure.

use ::message::Message;
use ::message::csv::CsvRecord;
use serde::Serialize;

/// Columns of a ride: its UUID, and those of the data that bike shares publish.
pub(crate) const COLUMNS: usize = 16;
const START_TIME: usize = 2;
const END_TIME: usize = 3;
const BIKE_ID: usize = 12;

/// Digits behind the point of a second.
const FRACTION_DIGITS: usize = 6;

/// A record which is not a ride.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RideError {
    /// It has other columns.
    #[error("{0} columns; expected {COLUMNS}")]
    Columns(usize),
    /// A column does not hold what it should.
    #[error("column {column} is {found:?}; expected {expected}")]
    Column {
        /// Index of the column.
        column: usize,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
}

/// A ride of a bike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ride {
    bike_id: u64,
    columns: Vec<String>,
}

impl Ride {
    /// The ride of a CSV record: `uuid`, trip duration, start and end time (`2019-10-28 19:13:39.1976`), id, name, latitude
    /// and longitude of the start and of the end station, bike id, user type, birth year, gender.
    ///
    /// # Errors
    /// If the record has other columns, or one of them holds what cannot be stored.
    pub fn of_record(record: &CsvRecord) -> Result<Ride, RideError> {
        let mut columns = record.fields().to_vec();
        if columns.len() != COLUMNS {
            return Err(RideError::Columns(columns.len()));
        }
        let not = |column: usize, expected| RideError::Column {
            column,
            found: record.fields()[column].clone(),
            expected,
        };
        if let Some(column) = columns.iter().position(|text| text.contains('\0')) {
            return Err(not(column, "text without a zero byte"));
        }
        for column in [START_TIME, END_TIME] {
            let time = fixed_width(&columns[column]);
            columns[column] = time.ok_or_else(|| not(column, "a time such as 2019-10-28 19:13:39.1976"))?;
        }
        // Rides are mapped to journals by the text, so there must be only one.
        let bike_id = columns[BIKE_ID].parse().ok().filter(|id: &u64| id.to_string() == columns[BIKE_ID]);
        let bike_id = bike_id.ok_or_else(|| not(BIKE_ID, "the number of a bike"))?;
        columns[0] = record.uuid().to_string();
        Ok(Ride { bike_id, columns })
    }

    /// The bike.
    pub fn bike_id(&self) -> u64 {
        self.bike_id
    }

    /// What tells it from others.
    pub(crate) fn uuid(&self) -> &str {
        &self.columns[0]
    }

    /// What is stored, in the order of the table's columns.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }
}

/// A ride as it is shown: by the names of its stations, and times as of RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Trip {
    #[serde(rename = "UUID")]
    pub(crate) uuid: String,
    pub(crate) start_time: String,
    pub(crate) end_time: String,
    pub(crate) start_station: String,
    pub(crate) end_station: String,
    #[serde(skip)]
    pub(crate) start_station_id: String,
    #[serde(skip)]
    pub(crate) end_station_id: String,
}

/// A time with all digits of its fraction. None if the text is not a time.
fn fixed_width(text: &str) -> Option<String> {
    const SHAPE: &str = "0000-00-00 00:00:00";
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fits = |(found, shape): (u8, u8)| if shape == b'0' { found.is_ascii_digit() } else { found == shape };
    let has_shape = whole.len() == SHAPE.len() && whole.bytes().zip(SHAPE.bytes()).all(fits);
    let is_fraction =
        (1..=FRACTION_DIGITS).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !has_shape || !is_fraction {
        return None;
    }
    let within = |digits: std::ops::Range<usize>, range: std::ops::RangeInclusive<u8>| {
        whole[digits].parse().is_ok_and(|number| range.contains(&number))
    };
    let is_date = within(5..7, 1..=12) && within(8..10, 1..=31);
    let is_time = within(11..13, 0..=23) && within(14..16, 0..=59) && within(17..19, 0..=59);
    (is_date && is_time).then(|| format!("{whole}.{fraction:0<FRACTION_DIGITS$}"))
}

/// A stored time as of RFC 3339.
pub(crate) fn shown(stored: &str) -> String {
    let time = stored.replacen(' ', "T", 1);
    let (whole, fraction) = time.split_once('.').unwrap_or((&time, ""));
    match fraction.trim_end_matches('0') {
        "" => format!("{whole}Z"),
        fraction => format!("{whole}.{fraction}Z"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0000000a-0000-1000-8000-010203040506";

    fn fields() -> Vec<String> {
        let line = "970,2019-10-28 19:13:39.1976,2019-10-28 19:29:50,3160,Central Park,40.77,-73.97,\
            519,\"Pershing, Square\",40.75,-73.97,17827,Subscriber,1969,1";
        ::message::csv::decode(format!("{UUID},{line}").as_bytes()).unwrap()
    }

    fn with(column: usize, text: &str) -> Result<Ride, RideError> {
        let mut fields = fields();
        fields[column] = text.to_owned();
        Ride::of_record(&CsvRecord::new(fields).unwrap())
    }

    #[test]
    fn a_ride_has_a_bike_and_times_of_one_width() {
        let ride = with(13, "Subscriber").unwrap();
        let mut expected = fields();
        expected[START_TIME] = "2019-10-28 19:13:39.197600".to_owned();
        expected[END_TIME] = "2019-10-28 19:29:50.000000".to_owned();
        assert_eq!(ride, Ride { bike_id: 17827, columns: expected });
        assert_eq!(ride.columns()[9], "Pershing, Square");
    }

    #[test]
    fn bikes_are_numbers_with_one_text_each() {
        for id in ["0", "7", "18446744073709551615"] {
            assert_eq!(with(BIKE_ID, id).unwrap().bike_id().to_string(), id);
        }
        for id in ["", "007", "+7", "-7", "7.0", " 7", "seven", "18446744073709551616"] {
            let error = with(BIKE_ID, id).unwrap_err().to_string();
            assert_eq!(error, format!("column 12 is {id:?}; expected the number of a bike"));
        }
    }

    #[test]
    fn times_are_checked_and_shown() {
        for (text, stored, rfc_3339) in [
            ("2019-10-28 19:13:39.1976", "2019-10-28 19:13:39.197600", "2019-10-28T19:13:39.1976Z"),
            ("2019-01-01 00:00:00", "2019-01-01 00:00:00.000000", "2019-01-01T00:00:00Z"),
            ("2019-12-31 23:59:59.999999", "2019-12-31 23:59:59.999999", "2019-12-31T23:59:59.999999Z"),
            ("2019-12-31 23:59:59.100", "2019-12-31 23:59:59.100000", "2019-12-31T23:59:59.1Z"),
        ] {
            assert_eq!(fixed_width(text).as_deref(), Some(stored), "{text}");
            assert_eq!(shown(stored), rfc_3339);
        }
        for text in [
            "",
            "2019-10-28",
            "10/28/2019 19:13:39",
            "2019-10-28T19:13:39",
            "2019-10-28 19:13:39.",
            "2019-10-28 19:13:39.1234567",
            "2019-10-28 19:13:39.1e3",
            "2019-13-28 19:13:39",
            "2019-00-28 19:13:39",
            "2019-10-32 19:13:39",
            "2019-10-28 24:13:39",
            "2019-10-28 19:60:39",
            "2019-10-28 19:13:60",
            "2019-10-28 19:13:3é",
        ] {
            assert_eq!(fixed_width(text), None, "{text:?}");
            assert!(matches!(with(START_TIME, text), Err(RideError::Column { column: START_TIME, .. })));
            assert!(matches!(with(END_TIME, text), Err(RideError::Column { column: END_TIME, .. })));
        }
    }

    #[test]
    fn what_cannot_be_stored_is_no_ride() {
        let error = with(5, "Central\0Park").unwrap_err().to_string();
        assert_eq!(error, "column 5 is \"Central\\0Park\"; expected text without a zero byte");
        for count in [0, 1, 15, 17] {
            let mut fields = fields();
            fields.resize(count, String::new());
            let error = Ride::of_record(&CsvRecord::new(fields).unwrap_or_default()).unwrap_err();
            assert_eq!(error, RideError::Columns(count));
        }
    }
}
