// SPDX-License-Identifier: MIT
//! Seconds since the Unix epoch to and from clock registers, in the guest's chosen format.

/// Register B: binary rather than decimal digits.
const BINARY: u8 = 4;
/// Register B: 24-hour rather than 12-hour.
const HOURS_24: u8 = 2;
/// Hour register in 12-hour format: afternoon.
const PM: u8 = 0x80;
const DAY: i64 = 86_400;

/// The time as registers: seconds, minutes, hours, day of week, day, month, year, century.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeRegisters {
    pub(super) second: u8,
    pub(super) minute: u8,
    pub(super) hour: u8,
    /// 1 is Sunday.
    pub(super) weekday: u8,
    pub(super) day: u8,
    pub(super) month: u8,
    pub(super) year: u8,
    pub(super) century: u8,
}

fn encode(value: i64, format: u8) -> u8 {
    let value = value.rem_euclid(100) as u8;
    if format & BINARY != 0 {
        value
    } else {
        ((value / 10) << 4) | (value % 10)
    }
}

fn decode(byte: u8, format: u8) -> i64 {
    if format & BINARY != 0 {
        byte.into()
    } else {
        i64::from(byte >> 4) * 10 + i64::from(byte & 0xF)
    }
}

fn encode_hour(hour: i64, format: u8) -> u8 {
    if format & HOURS_24 != 0 {
        return encode(hour, format);
    }
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    encode(twelve, format) | if hour >= 12 { PM } else { 0 }
}

fn decode_hour(byte: u8, format: u8) -> i64 {
    if format & HOURS_24 != 0 {
        return decode(byte, format);
    }
    decode(byte & !PM, format) % 12 + if byte & PM != 0 { 12 } else { 0 }
}

/// Days since 1970-01-01 of a proleptic Gregorian date; the day may be out of range.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years that start in March, so that the leap day comes last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

impl TimeRegisters {
    /// The registers at `seconds` since the epoch; `format` is register B.
    pub(super) fn from_epoch(seconds: i64, format: u8) -> Self {
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(days);
        Self {
            second: encode(second % 60, format),
            minute: encode(second / 60 % 60, format),
            hour: encode_hour(second / 3600, format),
            // 1970-01-01 was a Thursday.
            weekday: encode((days + 4).rem_euclid(7) + 1, format),
            day: encode(day, format),
            month: encode(month, format),
            year: encode(year, format),
            century: encode(year.div_euclid(100), format),
        }
    }

    /// Seconds since the epoch; values out of range carry over or, for the month, are clamped.
    pub(super) fn to_epoch(self, format: u8) -> i64 {
        let year = decode(self.century, format) * 100 + decode(self.year, format);
        let month = decode(self.month, format).clamp(1, 12);
        let days = days_from_civil(year, month, decode(self.day, format));
        let (hour, minute) = (decode_hour(self.hour, format), decode(self.minute, format));
        days * DAY + hour * 3600 + minute * 60 + decode(self.second, format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_two_centuries_comes_back() {
        for format in [0, BINARY, HOURS_24, BINARY | HOURS_24] {
            for day in 0..73_000 {
                let seconds = day * DAY + (day * 7919) % DAY;
                assert_eq!(
                    TimeRegisters::from_epoch(seconds, format).to_epoch(format),
                    seconds
                );
            }
        }
    }

    #[test]
    fn known_dates_have_their_registers() {
        // 2026-01-01T00:00:00Z, a Thursday; 2000-02-29T13:45:59Z, a Tuesday.
        let r = TimeRegisters::from_epoch(1_767_225_600, HOURS_24);
        assert_eq!(
            (r.century, r.year, r.month, r.day, r.weekday, r.hour),
            (0x20, 0x26, 1, 1, 5, 0)
        );
        let r = TimeRegisters::from_epoch(951_831_959, 0);
        assert_eq!((r.year, r.month, r.day, r.weekday), (0, 2, 0x29, 3));
        assert_eq!((r.hour, r.minute, r.second), (PM | 1, 0x45, 0x59));
    }
}
