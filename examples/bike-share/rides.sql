-- The last rides of each bike: the columns of their CSV records, in order. Times have one width, so that text sorts as they do.
CREATE TABLE IF NOT EXISTS rides (
  uuid                    TEXT NOT NULL,
  trip_duration           TEXT NOT NULL,
  start_time              TEXT NOT NULL,
  end_time                TEXT NOT NULL,
  start_station_id        TEXT NOT NULL,
  start_station_name      TEXT NOT NULL,
  start_station_latitude  TEXT NOT NULL,
  start_station_longitude TEXT NOT NULL,
  end_station_id          TEXT NOT NULL,
  end_station_name        TEXT NOT NULL,
  end_station_latitude    TEXT NOT NULL,
  end_station_longitude   TEXT NOT NULL,
  bike_id                 TEXT NOT NULL,
  user_type               TEXT NOT NULL,
  birth_year              TEXT NOT NULL,
  gender                  TEXT NOT NULL,
  PRIMARY KEY (bike_id, start_time)
);
