//! Lists in parts: labels, texts, exemplars, metadata, counts.

use bytes::Bytes;
use sextant_model::{Exemplar, Labels, MetricMetadata, MetricType, TenantId};

use super::{Malformed, answer, end, open_answer, put_text, take_tenant};
use crate::{
    ExemplarSeries, MetadataEntry, ShardStats,
    write_batch::{Reader, put_bytes, put_varint},
};

/// What lists are made of.
pub(crate) trait Item: Sized + Send + 'static {
    /// No item is encoded in fewer bytes.
    const BYTES_MIN: usize;

    fn put(&self, out: &mut Vec<u8>);

    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed>;
}

impl Item for String {
    const BYTES_MIN: usize = 1;

    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, self);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.text().map(str::to_owned)
    }
}

impl Item for TenantId {
    const BYTES_MIN: usize = 2;

    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, self.as_str());
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        take_tenant(r)
    }
}

impl Item for Labels {
    const BYTES_MIN: usize = 1;

    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Labels::from_canonical_bytes(r.bytes()?).map_err(|_| Malformed("labels are not canonical"))
    }
}

impl Item for Exemplar {
    const BYTES_MIN: usize = 10;

    fn put(&self, out: &mut Vec<u8>) {
        crate::write_batch::put_zigzag(out, self.t);
        out.extend_from_slice(&self.v.to_le_bytes());
        self.labels.put(out);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let t = r.zigzag()?;
        let v = f64::from_le_bytes(r.array()?);
        Ok(Self { t, v, labels: Labels::take(r)? })
    }
}

impl Item for ExemplarSeries {
    const BYTES_MIN: usize = 2;

    fn put(&self, out: &mut Vec<u8>) {
        self.labels.put(out);
        put_varint(out, self.exemplars.len() as u64);
        self.exemplars.iter().for_each(|e| e.put(out));
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let labels = Labels::take(r)?;
        Ok(Self { labels, exemplars: take_items(r)? })
    }
}

impl Item for MetadataEntry {
    const BYTES_MIN: usize = 4;

    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, &self.name);
        out.push(self.metadata.metric_type as u8);
        put_text(out, &self.metadata.help);
        put_text(out, &self.metadata.unit);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let name = r.text()?.to_owned();
        let metric_type = MetricType::from_number(i64::from(r.u8()?));
        let metadata = MetricMetadata { metric_type, help: r.text()?.to_owned(), unit: r.text()?.to_owned() };
        Ok(Self { name, metadata })
    }
}

impl Item for ShardStats {
    const BYTES_MIN: usize = 18;

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.series);
        put_varint(out, self.samples);
        out.extend_from_slice(&self.min_t.to_le_bytes());
        out.extend_from_slice(&self.max_t.to_le_bytes());
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (series, samples) = (r.varint()?, r.varint()?);
        let (min_t, max_t) = (i64::from_le_bytes(r.array()?), i64::from_le_bytes(r.array()?));
        Ok(Self { series, samples, min_t, max_t })
    }
}

fn take_items<T: Item>(r: &mut Reader<'_>) -> Result<Vec<T>, Malformed> {
    let n = r.count(T::BYTES_MIN)?;
    // In memory an item may be some times larger than its bytes: the vector grows as items are really there.
    let mut out = Vec::with_capacity(n.min(1024));
    for _ in 0..n {
        out.push(T::take(r)?);
    }
    Ok(out)
}

/// A list as messages of about `target` bytes.
pub(crate) struct ListParts<T> {
    items: std::vec::IntoIter<T>,
    target: usize,
}

impl<T: Item> ListParts<T> {
    pub(crate) fn new(items: Vec<T>, target: usize) -> Self {
        Self { items: items.into_iter(), target }
    }
}

impl<T: Item> Iterator for ListParts<T> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let (mut body, mut count) = (Vec::new(), 0);
        while body.len() < self.target {
            let Some(item) = self.items.next() else { break };
            item.put(&mut body);
            count += 1;
        }
        if count == 0 {
            return None;
        }
        let mut out = answer();
        out.reserve_exact(10 + body.len());
        put_varint(&mut out, count);
        out.append(&mut body);
        Some(out.into())
    }
}

/// The items of one message.
pub(crate) fn decode_list<T: Item>(message: &[u8]) -> Result<Vec<T>, Malformed> {
    let mut r = open_answer(message)?;
    let items = take_items(&mut r)?;
    end(&r)?;
    Ok(items)
}
