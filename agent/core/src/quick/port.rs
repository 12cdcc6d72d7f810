//! Ports and protocols in one word.

use std::fmt;
use std::str::FromStr;

use crate::spec::Port;

use super::FormError;

const PORT_FORMS: &str = "[source:|destination:][TCP:|UDP:|SCTP:]PORT[-PORT] (of TCP where no protocol is named), TCP, UDP, \
     SCTP, ICMP[:TYPE[/CODE]] or ICMPv6[:TYPE[/CODE]]; PORT from 1 to 65535, TYPE and CODE from 0 to 255";

/// `8443`, `TCP:8000-8099`, `source:UDP:53`, `ICMP`, `ICMP:8/0`.
#[derive(Clone, Debug, PartialEq)]
pub struct PortForm(pub Port);

impl FromStr for PortForm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let error = |reason: String| FormError::new("port", text, reason, PORT_FORMS);
        parse(text).map(Self).map_err(error)
    }
}

fn parse(text: &str) -> Result<Port, String> {
    let (end, rest) = match text.split_once(':') {
        Some((end @ ("source" | "destination"), rest)) => (Some(end.to_owned()), rest),
        _ => (None, text),
    };
    let (protocol, numbers) = match rest.split_once(':') {
        Some((protocol, numbers)) => (Some(protocol), Some(numbers)),
        None if rest.starts_with(|c: char| c.is_ascii_digit()) => (None, Some(rest)),
        None => (Some(rest), None),
    };
    let protocol = match protocol.map(str::to_ascii_uppercase).as_deref() {
        None => None,
        Some("ICMPV6") => Some("ICMPv6".to_owned()),
        Some(known @ ("TCP" | "UDP" | "SCTP" | "ICMP")) => Some(known.to_owned()),
        Some(_) => return Err("the protocol is not known".to_owned()),
    };
    let is_icmp = matches!(protocol.as_deref(), Some("ICMP" | "ICMPv6"));
    if end.is_some() && (is_icmp || numbers.is_none()) {
        return Err("an end has a port".to_owned());
    }
    let mut port = Port {
        protocol,
        end,
        ..Port::default()
    };
    match numbers {
        None => {}
        Some(numbers) if is_icmp => {
            let (kind, code) = pair(numbers, '/', |text| {
                let number: Option<u8> = text.parse().ok();
                number
                    .map(u32::from)
                    .ok_or_else(|| format!("`{text}` is not a type or code of ICMP"))
            })?;
            (port.icmp_type, port.icmp_code) = (Some(kind), code);
        }
        Some(numbers) => {
            let (first, last) = pair(numbers, '-', |text| {
                let number: Option<u16> = text.parse().ok().filter(|number| *number > 0);
                number
                    .map(u32::from)
                    .ok_or_else(|| format!("`{text}` is not a port"))
            })?;
            if last.is_some_and(|last| last < first) {
                return Err(format!("the range `{numbers}` ends before it begins"));
            }
            (port.port, port.end_port) = (Some(first), last);
        }
    }
    Ok(port)
}

/// One number, or two with the separator between them.
fn pair(
    text: &str,
    separator: char,
    read: impl Fn(&str) -> Result<u32, String>,
) -> Result<(u32, Option<u32>), String> {
    match text.split_once(separator) {
        Some((first, second)) => Ok((read(first)?, Some(read(second)?))),
        None => Ok((read(text)?, None)),
    }
}

impl fmt::Display for PortForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Port {
            protocol,
            port,
            end_port,
            end,
            icmp_type,
            icmp_code,
        } = &self.0;
        if let Some(end) = end {
            write!(f, "{end}:")?;
        }
        let (numbers, separator) = match (port, icmp_type) {
            (Some(port), _) => (Some((port, end_port)), '-'),
            (None, kind) => (kind.as_ref().map(|kind| (kind, icmp_code)), '/'),
        };
        let Some((first, second)) = numbers else {
            return f.write_str(protocol.as_deref().unwrap_or("TCP"));
        };
        if let Some(protocol) = protocol {
            write!(f, "{protocol}:")?;
        }
        write!(f, "{first}")?;
        match second {
            Some(second) => write!(f, "{separator}{second}"),
            None => Ok(()),
        }
    }
}
