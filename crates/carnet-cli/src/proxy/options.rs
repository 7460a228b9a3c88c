//! Values of the command line's options.

use std::time::Duration;

use carnet_proxy::rules::Rate;

/// `30` or `0.5`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let wanted = "write a number of seconds, as 30 or 0.5";
    let seconds: f64 = text.parse().map_err(|_| wanted)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wanted.into())
}

/// A number of flows. None at all would be a service that serves nobody.
pub fn flows(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(flows @ 1..) => Ok(flows),
        _ => Err(format!("write a number from 1 to {}", u32::MAX)),
    }
}

/// A number of flows in a second, or as rules have it.
pub fn rate(text: &str) -> Result<Rate, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let rate = if is_number { format!("{text}/s").parse() } else { text.parse() };
    rate.map_err(|error: carnet_proxy::rules::NoRate| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_value_says_what_would_be_one() {
        for text in ["0", "-1", "", "x", "1.5", "4294967296"] {
            assert!(flows(text).unwrap_err().contains("from 1"), "{text}");
        }
        assert_eq!(flows("4294967295"), Ok(u32::MAX));
        for text in ["0", "0/s", "", "x", "10/d", "1000001", "-1"] {
            assert!(rate(text).unwrap_err().contains("600/m"), "{text}");
        }
        for text in ["-1", "x", "", "inf", "NaN"] {
            assert!(seconds(text).unwrap_err().contains("seconds"), "{text}");
        }
    }

    #[test]
    fn a_number_is_a_rate_by_the_second() {
        assert_eq!(rate("50"), rate("50/s"));
        assert_eq!(rate("50").map(|rate| (rate.flows, rate.period, rate.burst)), Ok((50, Duration::from_secs(1), 50)));
        assert_eq!(rate("600/m").map(|rate| rate.burst), Ok(10));
    }
}
