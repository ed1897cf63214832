//! Which formats a target is asked for, and which one its answer is in.

/// A format, under the name that Prometheus' configuration gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeProtocol {
    /// Delimited protobuf.
    PrometheusProto,
    /// OpenMetrics 1.0.0.
    OpenMetricsText1_0_0,
    /// OpenMetrics 0.0.1.
    OpenMetricsText0_0_1,
    /// The text format with quoted names.
    PrometheusText1_0_0,
    /// The text format.
    PrometheusText0_0_4,
}

/// How a body is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// The Prometheus text format.
    Text,
    /// OpenMetrics.
    OpenMetrics,
    /// Delimited protobuf.
    Protobuf,
}

impl ScrapeProtocol {
    /// In the order of preference: protobuf first, because only it has native histograms.
    pub const DEFAULT: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    const fn row(self) -> (&'static str, &'static str, bool, BodyFormat) {
        match self {
            Self::PrometheusProto => (
                "PrometheusProto",
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
                true,
                BodyFormat::Protobuf,
            ),
            Self::OpenMetricsText1_0_0 => (
                "OpenMetricsText1.0.0",
                "application/openmetrics-text;version=1.0.0",
                true,
                BodyFormat::OpenMetrics,
            ),
            Self::OpenMetricsText0_0_1 => (
                "OpenMetricsText0.0.1",
                "application/openmetrics-text;version=0.0.1",
                false,
                BodyFormat::OpenMetrics,
            ),
            Self::PrometheusText1_0_0 => {
                ("PrometheusText1.0.0", "text/plain;version=1.0.0", true, BodyFormat::Text)
            }
            Self::PrometheusText0_0_4 => {
                ("PrometheusText0.0.4", "text/plain;version=0.0.4", false, BodyFormat::Text)
            }
        }
    }

    /// The name in configuration.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The protocol of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::DEFAULT.into_iter().find(|p| p.name() == name)
    }

    /// How its bodies are parsed.
    pub const fn format(self) -> BodyFormat {
        self.row().3
    }
}

/// The header `Accept` for protocols in order of preference.
pub fn accept_header(protocols: &[ScrapeProtocol]) -> String {
    let mut weight = protocols.len() + 1;
    let mut parts = Vec::with_capacity(weight);
    for p in protocols {
        let (_, media_type, has_utf8_names, _) = p.row();
        let escaping = if has_utf8_names { ";escaping=allow-utf-8" } else { "" };
        parts.push(format!("{media_type}{escaping};q=0.{weight}"));
        weight -= 1;
    }
    parts.push(format!("*/*;q=0.{weight}"));
    parts.join(",")
}

/// The format of a `Content-Type`; `None` for one that names none.
pub fn body_format(content_type: &str) -> Option<BodyFormat> {
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    match media_type.as_str() {
        "text/plain" => Some(BodyFormat::Text),
        "application/openmetrics-text" => Some(BodyFormat::OpenMetrics),
        "application/vnd.google.protobuf" => {
            let parameter = |name: &str| {
                let mut named = content_type.split(';').filter_map(|p| p.trim().split_once('='));
                named.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim_matches('"'))
            };
            let is_families = parameter("proto").is_none_or(|p| p == "io.prometheus.client.MetricFamily");
            let is_delimited = parameter("encoding").is_none_or(|e| e == "delimited");
            (is_families && is_delimited).then_some(BodyFormat::Protobuf)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_header_is_that_of_prometheus_3() {
        let expected = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
                        escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;\
                        q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;\
                        escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(accept_header(&ScrapeProtocol::DEFAULT), expected);
    }

    #[test]
    fn content_types() {
        for (text, format) in [
            ("text/plain; version=0.0.4; charset=utf-8", Some(BodyFormat::Text)),
            ("application/openmetrics-text; version=1.0.0", Some(BodyFormat::OpenMetrics)),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
                Some(BodyFormat::Protobuf),
            ),
            ("application/vnd.google.protobuf; encoding=text", None),
            ("text/html", None),
            ("", None),
        ] {
            assert_eq!(body_format(text), format, "{text}");
        }
    }
}
