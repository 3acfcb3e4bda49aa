CREATE TABLE shifts (
  id BIGINT NOT NULL PRIMARY KEY,
  version BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB;

CREATE TABLE on_call (
  shift_id BIGINT NOT NULL,
  doctor VARCHAR(32) NOT NULL,
  is_on BOOLEAN NOT NULL DEFAULT TRUE,
  version BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (shift_id, doctor),
  FOREIGN KEY (shift_id) REFERENCES shifts (id)
) ENGINE = InnoDB;

CREATE TABLE rooms (
  id BIGINT NOT NULL PRIMARY KEY,
  version BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB;

CREATE TABLE bookings (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  room_id BIGINT NOT NULL,
  starts_at BIGINT NOT NULL,
  ends_at BIGINT NOT NULL,
  KEY by_room (room_id, starts_at),
  FOREIGN KEY (room_id) REFERENCES rooms (id)
) ENGINE = InnoDB;

-- The hospital's audit looks at every row before it is written, and takes its time.
CREATE TRIGGER audit_leave BEFORE UPDATE ON on_call FOR EACH ROW DO SLEEP(0.01);
CREATE TRIGGER audit_booking BEFORE INSERT ON bookings FOR EACH ROW DO SLEEP(0.01);

-- For a look by hand, and for `make load`.
INSERT INTO shifts (id) VALUES (1);
INSERT INTO on_call (shift_id, doctor) VALUES (1, 'ann'), (1, 'ben');
INSERT INTO rooms (id) VALUES (1), (2), (3);
