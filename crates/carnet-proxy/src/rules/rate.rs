//! How many new flows a rule lets through.

use std::{
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{read::Wrong, source::shown};

/// So many flows in a time, and so many at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Flows in each `period`; at least one.
    pub flows: u32,
    /// A second, a minute or an hour.
    pub period: Duration,
    /// Flows that may come at once after a silence; at least one.
    pub burst: u32,
}

/// A bucket that fills with time, and has one token less for each flow.
///
/// It is one number: the time at which it would be full again. So any number of threads may take from it without a lock.
#[derive(Debug)]
pub struct TokenBucket {
    rate: Rate,
    /// Nanoseconds of the caller's clock.
    full_at: AtomicU64,
}

impl Rate {
    /// `10/s`, `600/m` or `1000/h`, with a burst of what comes in a second.
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || {
            let action = format!("write \"10/s\", \"600/m\" or \"1000/h\"; up to {MOST}");
            (format!("{:?} is no rate", shown(text)), action)
        };
        let (flows, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        let is_number = flows.trim().bytes().all(|byte| byte.is_ascii_digit());
        let flows = flows.trim().parse().ok().filter(|flows| is_number && (1..=MOST).contains(flows));
        let flows: u32 = flows.ok_or_else(wrong)?;
        Ok(Self { flows, period: Duration::from_secs(seconds), burst: flows.div_ceil(seconds as u32) })
    }

    /// Nanoseconds in which one token comes.
    fn interval(self) -> u64 {
        nanoseconds(self.period) / u64::from(self.flows.max(1))
    }
}

/// A text is no [`Rate`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what}; {action}")]
pub struct NoRate {
    what: String,
    action: String,
}

/// As rules have it: `10/s`, `600/m` or `1000/h`.
impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Self, NoRate> {
        Self::parse(text).map_err(|(what, action)| NoRate { what, action })
    }
}

impl TokenBucket {
    /// A full one.
    pub fn new(rate: Rate) -> Self {
        Self { rate, full_at: AtomicU64::new(0) }
    }

    /// How fast it fills.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes a token; whether there was one. `now` is the time since any moment, the same one at each call.
    pub fn take(&self, now: Duration) -> bool {
        let now = nanoseconds(now);
        let interval = self.rate.interval();
        let room = interval.saturating_mul(u64::from(self.rate.burst.max(1) - 1));
        let taken = |full_at: u64| {
            let full_at = full_at.max(now);
            (full_at - now <= room).then(|| full_at.saturating_add(interval))
        };
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// In how long there is a token, where nobody takes it meanwhile. Zero: now.
    pub fn next(&self, now: Duration) -> Duration {
        let room = self.rate.interval().saturating_mul(u64::from(self.rate.burst.max(1) - 1));
        let missing = self.full_at.load(Ordering::Relaxed).saturating_sub(nanoseconds(now));
        Duration::from_nanos(missing.saturating_sub(room))
    }

    /// Whether no token is missing: it is as good as new.
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at.load(Ordering::Relaxed) <= nanoseconds(now)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Flows in a period, and of a burst.
pub(super) const MOST: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn taken(bucket: &TokenBucket, now: Duration, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(bucket.take(now))).sum()
    }

    #[test]
    fn rates_as_they_are_written() {
        let rate = |flows, seconds, burst| Ok(Rate { flows, period: Duration::from_secs(seconds), burst });
        assert_eq!(Rate::parse("10/s"), rate(10, 1, 10));
        assert_eq!(Rate::parse(" 90 / m "), rate(90, 60, 2));
        assert_eq!(Rate::parse("5/h"), rate(5, 3600, 1));
        for text in ["", "10", "/s", "10/", "10/d", "0/s", "-1/s", "+1/s", "1.5/s", "1000001/s", "99999999999/s"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_burst_is_let_through_and_then_so_many_as_time_brings() {
        let bucket = TokenBucket::new(Rate { flows: 10, period: Duration::from_secs(1), burst: 5 });
        let start = Duration::from_secs(1000);
        assert_eq!(taken(&bucket, start, 100), 5);
        assert_eq!(taken(&bucket, start + Duration::from_millis(99), 100), 0);
        assert_eq!(taken(&bucket, start + Duration::from_millis(100), 100), 1);
        assert_eq!(taken(&bucket, start + Duration::from_millis(450), 100), 3);
        assert_eq!(taken(&bucket, start + Duration::from_secs(3600), 100), 5);
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept() {
        let bucket = TokenBucket::new(Rate { flows: 7, period: Duration::from_secs(1), burst: 7 });
        let taken: u32 = (0..100_000).map(|step| taken(&bucket, Duration::from_millis(step), 1)).sum();
        assert!((700..=707).contains(&taken), "{taken} in 100 seconds");
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_away() {
        let bucket = TokenBucket::new(Rate { flows: 1, period: Duration::from_secs(1), burst: 1 });
        assert!(bucket.take(Duration::from_secs(10)));
        assert!(!bucket.take(Duration::ZERO) && !bucket.take(Duration::MAX - Duration::MAX));
        assert!(bucket.take(Duration::from_secs(11)) && bucket.take(Duration::MAX));
    }

    #[test]
    fn threads_share_what_there_is() {
        let bucket = TokenBucket::new(Rate { flows: 1000, period: Duration::from_secs(1), burst: 1000 });
        let all: u32 = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| taken(&bucket, Duration::ZERO, 1000))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(all, 1000);
    }
}
