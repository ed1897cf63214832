//! A sealed generation as the source of a block.

use sextant_model::{Exemplar, Labels, MetricMetadata, SeriesBuf};
use sextant_storage::SeriesSource;

use crate::head::TenantFlush;

impl SeriesSource for TenantFlush {
    fn len(&self) -> usize {
        Self::len(self)
    }

    fn labels(&self, i: usize) -> Labels {
        Self::labels(self, i)
    }

    fn time_key(&self, i: usize) -> Option<u64> {
        Self::time_key(self, i)
    }

    fn read(&self, i: usize, buf: &mut SeriesBuf) {
        Self::read(self, i, buf);
    }

    fn exemplars(&self, i: usize) -> Vec<Exemplar> {
        Self::exemplars(self, i)
    }

    fn metadata(&self, i: usize) -> Option<MetricMetadata> {
        Self::metadata(self, i)
    }

    fn families(&self) -> Vec<(String, MetricMetadata)> {
        Self::families(self)
    }
}
