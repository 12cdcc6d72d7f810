//! The two text formats: OpenMetrics, as prometheus-client writes it, and Prometheus' own 0.0.4.

use std::fmt::Write;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What every scraper and promtool understand.
    Text,
    OpenMetrics,
}

impl Format {
    /// Chooses by a request's `Accept` header: OpenMetrics where it is asked for by name and not less than plain text.
    pub fn negotiate(accept: &str) -> Self {
        let mut open_metrics = 0.0;
        let mut text: f64 = 0.0;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
            match media.as_str() {
                "application/openmetrics-text" => open_metrics = quality,
                "text/plain" | "text/*" => text = text.max(quality),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// # Errors
    ///
    /// When a collector fails to encode itself.
    pub fn encode(self, registries: &[&Registry]) -> Result<String, std::fmt::Error> {
        let mut body = String::new();
        for registry in registries {
            encode_registry(&mut body, registry)?;
        }
        match self {
            Self::OpenMetrics => {
                encode_eof(&mut body)?;
                Ok(body)
            }
            Self::Text => to_text(&body),
        }
    }
}

/// Samples are the same in both formats, since we write no timestamps, and exemplars are added afterwards. What differs: 0.0.4 knows no
/// `UNIT`, `EOF` and `info`, and calls a counter by the name of its samples, with `_total`.
fn to_text(open_metrics: &str) -> Result<String, std::fmt::Error> {
    let mut text = String::with_capacity(open_metrics.len());
    // A family's HELP comes before the TYPE that decides on its name.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.rsplit_once(' ').ok_or(std::fmt::Error)?;
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((of, help)) = help.take()
                && of == name
            {
                writeln!(text, "# HELP {name}{suffix} {help}")?;
            }
            writeln!(text, "# TYPE {name}{suffix} {kind}")?;
        } else if !line.starts_with('#') {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Unit;

    use super::*;

    #[test]
    fn open_metrics_is_given_to_who_asks_for_it() {
        // As Prometheus 2.42 and 3.1 ask.
        let two = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.1";
        for accept in [
            two,
            three,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; q=0.1, */*",
        ] {
            assert_eq!(Format::negotiate(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/html, */*;q=0.8",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.2, text/plain;q=0.9",
            "application/openmetrics-text;q=nonsense",
        ] {
            assert_eq!(Format::negotiate(accept), Format::Text, "{accept}");
        }
    }

    #[test]
    fn families_are_renamed_as_each_format_wants() {
        let mut registry = Registry::with_prefix("sabot");
        let counter: Counter = Counter::default();
        counter.inc_by(7);
        registry.register("lost", "What was lost", counter);
        let gauge: Gauge = Gauge::default();
        registry.register_with_unit("age", "Its age", Unit::Seconds, gauge);
        registry.register("build", "The build", Info::new([("version", "1")]));

        let open_metrics = Format::OpenMetrics.encode(&[&registry]).unwrap();
        assert!(open_metrics.contains("# TYPE sabot_lost counter\nsabot_lost_total 7\n"));
        assert!(open_metrics.ends_with("# EOF\n"));

        let text = Format::Text.encode(&[&registry]).unwrap();
        assert_eq!(
            text,
            "# HELP sabot_lost_total What was lost.\n\
             # TYPE sabot_lost_total counter\n\
             sabot_lost_total 7\n\
             # HELP sabot_age_seconds Its age.\n\
             # TYPE sabot_age_seconds gauge\n\
             sabot_age_seconds 0\n\
             # HELP sabot_build_info The build.\n\
             # TYPE sabot_build_info gauge\n\
             sabot_build_info{version=\"1\"} 1\n"
        );
    }
}
