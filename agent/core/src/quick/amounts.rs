//! Amounts in one word: percents, loss models, offsets, times, code points and lengths.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::spec::{Burst, GilbertElliott, Offset, Pulse, Ramp};
use crate::units::{bit_rate, byte_count};

use super::FormError;

const PERCENT_FORMS: &str = "a number from 0 to 100, with or without %, as 20, 20% or 0.5%";
const DURATION_FORMS: &str = "such as 100ms, 5m or 1h30m";

/// `20`, `20%`, `0.5%`; from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PercentForm(pub f64);

/// `2%:8`: the loss, and the mean length of a burst.
#[derive(Clone, Debug, PartialEq)]
pub struct BurstForm(pub Burst);

/// `1:25`, `1:25:0`, `1:25:0:100`: percents from good to bad, from bad to good, and the loss in either state.
#[derive(Clone, Debug, PartialEq)]
pub struct GilbertElliottForm(pub GilbertElliott);

/// `0-100`, `8-`, `-100`: bytes from the first to the one behind the last.
#[derive(Clone, Debug, PartialEq)]
pub struct OffsetForm(pub Offset);

/// `10s/5s`: on and off.
#[derive(Clone, Debug, PartialEq)]
pub struct PulseForm(pub Pulse);

/// `60s`, `60s:50..200`: over which time, and from which percent of the value to which.
#[derive(Clone, Debug, PartialEq)]
pub struct RampForm(pub Ramp);

/// `100-1500`, `100-`, `-1500`: bytes of the IP packet, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthForm(pub Option<u32>, pub Option<u32>);

/// `46`; from 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DscpForm(pub u32);

/// `10mbit`: checked, and kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateForm(pub String);

/// `16KiB`: checked, and kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BytesForm(pub String);

impl FromStr for PercentForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let error = || FormError::new("percent", text, "it is not a percent", PERCENT_FORMS);
        percent(text).map(Self).ok_or_else(error)
    }
}

fn percent(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%').unwrap_or(text);
    number.parse().ok().filter(|value| (0.0..=100.0).contains(value))
}

impl fmt::Display for PercentForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for BurstForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let parse = || {
            let (loss, length) = text.split_once(':')?;
            let length: f64 = length.parse().ok()?;
            Some(Burst {
                percent: percent(loss)?,
                length: (1.0..f64::INFINITY).contains(&length).then_some(length)?,
            })
        };
        let allowed = "PERCENT:LENGTH, the loss and the mean number of packets of a burst from 1 on, as 2%:8";
        let error = || FormError::new("burst", text, "it is not a loss and a length", allowed);
        parse().map(Self).ok_or_else(error)
    }
}

impl FromStr for GilbertElliottForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let percents: Option<Vec<f64>> = text.split(':').map(percent).collect();
        let (p, r, loss_good, loss_bad) = match percents.as_deref() {
            Some([p, r]) => (*p, *r, None, None),
            Some([p, r, good]) => (*p, *r, Some(*good), None),
            Some([p, r, good, bad]) => (*p, *r, Some(*good), Some(*bad)),
            _ => {
                let allowed = "P:R[:LOSS_GOOD[:LOSS_BAD]], percents from 0 to 100, as 1:25:0:100";
                let reason = "it is not two to four percents";
                return Err(FormError::new("gilbert-elliott", text, reason, allowed));
            }
        };
        Ok(Self(GilbertElliott {
            p,
            r,
            loss_good,
            loss_bad,
        }))
    }
}

/// Two numbers with `-` between them, of which one may be left out.
fn range(text: &str) -> Option<(Option<u32>, Option<u32>)> {
    let number = |text: &str| match text {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (number(from)?, number(to)?);
    (from.is_some() || to.is_some()).then_some((from, to))
}

impl FromStr for OffsetForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let allowed = "FROM-TO, bytes of the payload without the one at TO, as 0-100, 8- or -100";
        let error = || FormError::new("offset", text, "it is not a range", allowed);
        let (from, to) = range(text).ok_or_else(error)?;
        Ok(Self(Offset { from, to }))
    }
}

impl FromStr for LengthForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let allowed = "MIN-MAX, bytes of the IP packet, as 100-1500, 100- or -1500";
        let error = || FormError::new("length", text, "it is not a range", allowed);
        let (least, greatest) = range(text).ok_or_else(error)?;
        Ok(Self(least, greatest))
    }
}

impl FromStr for DscpForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let point = text.parse().ok().filter(|point| *point < 64);
        let error = || FormError::new("dscp", text, "it is not a code point", "a number from 0 to 63");
        point.map(Self).ok_or_else(error)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("`{text}` is not a duration: {e}"))
}

impl FromStr for PulseForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let allowed = format!("ON/OFF, durations {DURATION_FORMS}, as 10s/5s");
        let error = |reason| FormError::new("pulse", text, reason, allowed.as_str());
        let (on, off) = text
            .split_once('/')
            .ok_or_else(|| error("there is no / between on and off".to_owned()))?;
        Ok(Self(Pulse {
            on_time: duration(on).map_err(error)?,
            off_time: duration(off).map_err(error)?,
        }))
    }
}

impl FromStr for RampForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let allowed = format!(
            "OVER[:FROM..TO], a duration {DURATION_FORMS} and percents of the value, as 60s or 60s:50..200"
        );
        let error = |reason| FormError::new("ramp", text, reason, allowed.as_str());
        let (over, ends) = match text.split_once(':') {
            Some((over, ends)) => (over, Some(ends)),
            None => (text, None),
        };
        let number = |text: &str| {
            let value: Option<f64> = text.strip_suffix('%').unwrap_or(text).parse().ok();
            let value = value.filter(|value| value.is_finite());
            value.ok_or_else(|| error(format!("`{text}` is not a percent")))
        };
        let (from, to) = match ends.map(|ends| (ends, ends.split_once(".."))) {
            None => (None, None),
            Some((_, Some((from, to)))) => (Some(number(from)?), Some(number(to)?)),
            Some((ends, None)) => return Err(error(format!("`{ends}` is not FROM..TO"))),
        };
        Ok(Self(Ramp {
            over: duration(over).map_err(error)?,
            from,
            to,
        }))
    }
}

impl FromStr for RateForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let allowed = "a bit rate as 10mbit, 1.5gbit, 800kbit or 56000";
        let error = || FormError::new("rate", text, "it is not a rate", allowed);
        bit_rate(text).map(|_| Self(text.to_owned())).ok_or_else(error)
    }
}

impl FromStr for BytesForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let allowed = "a number of bytes as 16KiB, 32kB or 3028";
        let error = || FormError::new("bytes", text, "it is not a number of bytes", allowed);
        byte_count(text).map(|_| Self(text.to_owned())).ok_or_else(error)
    }
}
