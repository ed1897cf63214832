//! Attributes of resources, scopes and points as labels.

use std::collections::{BTreeMap, btree_map::Entry};

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use sextant_model::{Labels, LabelsBuilder, METRIC_NAME};

use super::{OtlpOptions, names::label_name};

/// The text of an attribute's value: lists and maps as JSON, bytes in base64.
pub fn value_text(value: Option<&AnyValue>) -> String {
    match value.and_then(|v| v.value.as_ref()) {
        Some(Value::StringValue(s)) => s.clone(),
        None => String::new(),
        Some(Value::BytesValue(b)) => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.encode(b)
        }
        Some(Value::BoolValue(b)) => b.to_string(),
        Some(Value::IntValue(i)) => i.to_string(),
        Some(Value::DoubleValue(d)) => double_text(*d),
        Some(other) => json(other).to_string(),
    }
}

/// A number as JavaScript writes it: an exponent only below 1e-6 and from 1e21 on.
fn double_text(d: f64) -> String {
    let plain = d == 0.0 || !d.is_finite() || (1e-6..1e21).contains(&d.abs());
    let text = if plain { d.to_string() } else { format!("{d:e}") };
    if d.abs() >= 1e21 { text.replace('e', "e+") } else { text }
}

fn json(value: &Value) -> serde_json::Value {
    use serde_json::{Value as Json, json};
    let inner = |v: &AnyValue| v.value.as_ref().map_or(Json::Null, json_of);
    match value {
        Value::ArrayValue(a) => Json::Array(a.values.iter().map(inner).collect()),
        Value::KvlistValue(m) => Json::Object(
            m.values.iter().map(|kv| (kv.key.clone(), kv.value.as_ref().map_or(Json::Null, inner))).collect(),
        ),
        Value::StringValue(s) => json!(s),
        Value::BoolValue(b) => json!(b),
        Value::IntValue(i) => json!(i),
        Value::DoubleValue(d) => json!(d),
        Value::BytesValue(_) => json!(value_text(Some(&AnyValue { value: Some(value.clone()) }))),
        other => json!(format!("{other:?}")),
    }
}

fn json_of(value: &Value) -> serde_json::Value {
    json(value)
}

fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a KeyValue> {
    attributes.iter().find(|a| a.key == key)
}

/// `job` is `service.namespace/service.name`, `instance` is `service.instance.id`.
pub fn job_and_instance(resource: &[KeyValue]) -> (String, String) {
    let text = |key: &str| find(resource, key).map(|a| value_text(a.value.as_ref())).unwrap_or_default();
    let (namespace, name) = (text("service.namespace"), text("service.name"));
    let job = if namespace.is_empty() || name.is_empty() { name } else { format!("{namespace}/{name}") };
    (job, text("service.instance.id"))
}

/// What resource and scope add to every point of a scope.
#[derive(Clone, Debug, Default)]
pub struct BaseLabels {
    /// Promoted resource attributes: a point's own attribute of the same name wins.
    promoted: LabelsBuilder,
    /// Scope labels, `job` and `instance`: they win over a point's attributes.
    fixed: LabelsBuilder,
}

/// The labels that every point of a scope has.
pub fn base_labels(
    resource: &[KeyValue],
    scope: Option<&InstrumentationScope>,
    schema_url: &str,
    options: &OtlpOptions,
) -> BaseLabels {
    let mut promoted = LabelsBuilder::default();
    for attribute in resource.iter().filter(|a| options.promotes(&a.key)) {
        if let Ok(name) = options.label(&attribute.key)
            && promoted.get(&name).is_none()
        {
            promoted.set(&name, &value_text(attribute.value.as_ref()));
        }
    }
    let mut fixed = LabelsBuilder::default();
    if options.promote_scope
        && let Some(scope) = scope
        && !scope.name.is_empty()
    {
        fixed.set("otel_scope_name", &scope.name);
        fixed.set("otel_scope_version", &scope.version);
        fixed.set("otel_scope_schema_url", schema_url);
        for attribute in &scope.attributes {
            if let Ok(name) = options.label(&format!("otel_scope_{}", attribute.key)) {
                fixed.set(&name, &value_text(attribute.value.as_ref()));
            }
        }
    }
    let (job, instance) = job_and_instance(resource);
    fixed.set("job", &job).set("instance", &instance);
    BaseLabels { promoted, fixed }
}

/// Attributes whose names became a label's that another attribute of the point had already become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// How many.
    pub attributes: u64,
    /// The first label that held several.
    pub label: Option<String>,
}

/// A point's labels without the metric's name: attributes that become one label are joined with `;` in order of their names, and
/// counted. `job`, `instance` and the scope's labels win over attributes of their name, and those over promoted ones.
pub fn point_labels(
    base: &BaseLabels,
    attributes: &[KeyValue],
    options: &OtlpOptions,
    joins: &mut Joined,
) -> LabelsBuilder {
    let mut sorted: Vec<&KeyValue> = attributes.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    let mut joined = BTreeMap::<String, String>::new();
    for attribute in sorted {
        let Ok(name) = options.label(&attribute.key) else { continue };
        if name == METRIC_NAME {
            continue;
        }
        let value = value_text(attribute.value.as_ref());
        match joined.entry(name) {
            Entry::Vacant(new) => {
                new.insert(value);
            }
            Entry::Occupied(mut known) => {
                joins.attributes += 1;
                joins.label.get_or_insert_with(|| known.key().clone());
                let text = known.get_mut();
                text.push(';');
                text.push_str(&value);
            }
        }
    }
    let mut labels = base.promoted.clone();
    labels.remove(METRIC_NAME);
    for (name, value) in &joined {
        labels.set(name, value);
    }
    for (name, value) in base.fixed.iter() {
        labels.set(name, value);
    }
    labels
}

/// `target_info`'s labels: every resource attribute that is not already in `job` or `instance`; `None` where there is none, or
/// nothing to join on.
pub fn target_info(resource: &[KeyValue], options: &OtlpOptions, joins: &mut Joined) -> Option<Labels> {
    let (job, instance) = job_and_instance(resource);
    if job.is_empty() && instance.is_empty() {
        return None;
    }
    let identifying = ["service.namespace", "service.name", "service.instance.id"];
    let rest: Vec<KeyValue> =
        resource.iter().filter(|a| !identifying.contains(&a.key.as_str())).cloned().collect();
    if rest.is_empty() {
        return None;
    }
    let mut base = BaseLabels::default();
    base.fixed.set("job", &job).set("instance", &instance);
    let mut labels = point_labels(&base, &rest, options, joins);
    labels.set(METRIC_NAME, "target_info");
    Some(labels.build())
}

impl OtlpOptions {
    /// An attribute's name as a label's.
    pub fn label(&self, key: &str) -> Result<String, super::names::NameError> {
        label_name(key, self.strategy, self.keep_underscore_runs, self.label_key_prefix)
    }

    fn promotes(&self, key: &str) -> bool {
        if self.promote_all_resource_attributes {
            return !self.ignore_resource_attributes.iter().any(|i| i == key);
        }
        self.promote_resource_attributes.iter().any(|p| p == key)
    }
}
