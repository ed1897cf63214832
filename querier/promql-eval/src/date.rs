//! `hour`, `day_of_month` and the like: parts of a UTC time.

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatePart {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 0 (Sunday) to 6.
    DayOfWeek,
    /// 1 to 31.
    DayOfMonth,
    /// 1 to 366.
    DayOfYear,
    /// 28 to 31.
    DaysInMonth,
    /// 1 to 12.
    Month,
    /// The year.
    Year,
}

/// A civil date (proleptic Gregorian).
struct Date {
    year: i64,
    month: i64,
    day: i64,
}

impl DatePart {
    /// The part that a function gives.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day_of_week" => Self::DayOfWeek,
            "day_of_month" => Self::DayOfMonth,
            "day_of_year" => Self::DayOfYear,
            "days_in_month" => Self::DaysInMonth,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfWeek => "day_of_week",
            Self::DayOfMonth => "day_of_month",
            Self::DayOfYear => "day_of_year",
            Self::DaysInMonth => "days_in_month",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The part of a time in seconds since the Unix epoch; fractions of a second are cut.
    pub fn get(self, seconds: f64) -> f64 {
        // What no calendar holds is far outside of any data; it must only not overflow.
        let seconds = (seconds as i64).clamp(-(1 << 55), 1 << 55);
        let days = seconds.div_euclid(86_400);
        let part = match self {
            Self::Minute => seconds.rem_euclid(3600) / 60,
            Self::Hour => seconds.rem_euclid(86_400) / 3600,
            Self::DayOfWeek => (days + 4).rem_euclid(7),
            Self::DayOfMonth => date(days).day,
            Self::DayOfYear => days - days_of(&Date { year: date(days).year, month: 1, day: 1 }) + 1,
            Self::DaysInMonth => {
                let d = date(days);
                let (year, month) = if d.month == 12 { (d.year + 1, 1) } else { (d.year, d.month + 1) };
                days_of(&Date { year, month, day: 1 }) - days_of(&Date { day: 1, ..d })
            }
            Self::Month => date(days).month,
            Self::Year => date(days).year,
        };
        part as f64
    }
}

/// The date of a day number; day 0 is 1970-01-01. Years begin in March inside, so that the leap day comes last.
fn date(days: i64) -> Date {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Date { year, month, day: day_of_year - (153 * m + 2) / 5 + 1 }
}

/// The day number of a date.
fn days_of(d: &Date) -> i64 {
    let year = if d.month <= 2 { d.year - 1 } else { d.year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let m = if d.month > 2 { d.month - 3 } else { d.month + 9 };
    let day_of_year = (153 * m + 2) / 5 + d.day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `2006-01-02T15:04:05Z`.
pub fn rfc3339(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let d = date(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}Z", d.year, d.month, d.day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_years_and_times_before_the_epoch() {
        let leap_day = 1_456_704_000.0; // 2016-02-29
        assert_eq!(DatePart::DayOfMonth.get(leap_day), 29.0);
        assert_eq!(DatePart::DaysInMonth.get(leap_day), 29.0);
        assert_eq!(DatePart::DayOfYear.get(leap_day), 60.0);
        assert_eq!(DatePart::DayOfWeek.get(leap_day), 1.0);
        assert_eq!(DatePart::Year.get(-1.0), 1969.0);
        assert_eq!(DatePart::Minute.get(-60.0), 59.0);
        assert_eq!(rfc3339(1_456_704_061_000), "2016-02-29T00:01:01Z");
    }
}
