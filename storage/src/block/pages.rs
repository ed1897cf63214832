//! Reads numbers of the sample table page by page, without the detour over Arrow arrays.
//!
//! A page holds one column's numbers as byte planes; the numbers wanted are put together from the planes directly, so a
//! series of 240 samples in a page of 32,000 costs its own samples and the page's decompression, nothing more.

use std::{ops::Range, sync::Arc};

use parquet::{
    basic::Encoding,
    column::page::{Page, PageReader},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData},
        page_index::offset_index::PageLocation,
        serialized_reader::SerializedPageReader,
    },
};

use super::{fetch::SparseObject, stats::ReadStats};

/// A column of numbers; its place in the table's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// `r`
    Narrow = 1,
    /// `w`
    Wide = 2,
    /// `v`
    Double = 3,
}

impl Column {
    /// The column of an `enc`.
    pub fn of(enc: i32) -> Option<Self> {
        match enc {
            1 => Some(Self::Narrow),
            2 => Some(Self::Wide),
            3 => Some(Self::Double),
            _ => None,
        }
    }
}

/// Where the pages of the three columns are.
pub struct SamplePages {
    groups: Vec<Group>,
}

struct Group {
    rows: Range<u64>,
    /// In order of [`Column`].
    columns: [GroupColumn; 3],
}

struct GroupColumn {
    chunk: ColumnChunkMetaData,
    /// Pages; `first_row_index` counts from the row group's first row.
    pages: Vec<PageLocation>,
}

/// Rows of one series in one column, ascending and disjoint over a read.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Rows of the table.
    pub rows: Range<u64>,
    /// What the caller knows the series by.
    pub tag: usize,
}

/// Numbers as they are stored.
pub enum Numbers<'a> {
    /// `r`
    Narrow(&'a [i32]),
    /// `w`
    Wide(&'a [i64]),
    /// `v`
    Double(&'a [f64]),
}

impl SamplePages {
    /// The pages that a footer names; `None` where it has no page index.
    pub fn new(metadata: &ParquetMetaData) -> Option<Self> {
        let mut groups = Vec::new();
        let mut at = 0u64;
        for (i, group) in metadata.row_groups().iter().enumerate() {
            let end = at.checked_add(u64::try_from(group.num_rows()).ok()?)?;
            let column = |c: Column| {
                let index = metadata.offset_index()?.get(i)?.get(c as usize)?;
                let chunk = group.columns().get(c as usize)?.clone();
                Some(GroupColumn { chunk, pages: index.page_locations().clone() })
            };
            let columns = [column(Column::Narrow)?, column(Column::Wide)?, column(Column::Double)?];
            groups.push(Group { rows: at..end, columns });
            at = end;
        }
        Some(Self { groups })
    }

    /// Bytes in memory, roughly.
    pub fn memory_size(&self) -> usize {
        let of = |g: &Group| 1024 + g.columns.iter().map(|c| c.pages.len() * 24).sum::<usize>();
        self.groups.iter().map(of).sum()
    }

    /// The file's bytes that hold the rows of a column; the rows ascending.
    pub fn ranges(&self, column: Column, wanted: &[Wanted], out: &mut Vec<Range<u64>>) {
        self.visit(column, wanted, |_, pages, _| out.extend(pages.iter().map(page_range)));
    }

    /// Decodes the rows and hands each series' numbers to `f`. An error is a damaged file.
    pub fn decode(
        &self,
        column: Column,
        object: &SparseObject,
        wanted: &[Wanted],
        stats: &ReadStats,
        mut f: impl FnMut(usize, Numbers<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let object = Arc::new(object.clone());
        let mut failed = Ok(());
        let mut buffer = Buffer::default();
        self.visit(column, wanted, |group, pages, part| {
            if failed.is_ok() {
                failed = decode_group(group, column, &object, pages, part, stats, &mut buffer, &mut f);
            }
        });
        failed?;
        if buffer.open.is_some() { Err("rows beyond the end of the table".into()) } else { Ok(()) }
    }

    /// Calls `f` for each row group with the pages and series that concern it.
    fn visit(
        &self,
        column: Column,
        wanted: &[Wanted],
        mut f: impl FnMut(&Group, Vec<PageLocation>, &[Wanted]),
    ) {
        let mut from = 0;
        for group in &self.groups {
            while wanted.get(from).is_some_and(|w| w.rows.end <= group.rows.start) {
                from += 1;
            }
            let end = from + wanted[from..].partition_point(|w| w.rows.start < group.rows.end);
            let part = &wanted[from..end];
            if part.is_empty() {
                continue;
            }
            let all = &group.columns[column as usize - 1].pages;
            let first_row =
                |p: &PageLocation| u64::try_from(p.first_row_index).unwrap_or(0) + group.rows.start;
            let mut pages = Vec::new();
            let mut next = part.iter().peekable();
            for (i, page) in all.iter().enumerate() {
                let page_end = all.get(i + 1).map_or(group.rows.end, first_row);
                while next.peek().is_some_and(|w| w.rows.end <= first_row(page)) {
                    next.next();
                }
                if next.peek().is_some_and(|w| w.rows.start < page_end) {
                    pages.push(page.clone());
                }
            }
            f(group, pages, part);
        }
    }
}

fn page_range(p: &PageLocation) -> Range<u64> {
    let at = u64::try_from(p.offset).unwrap_or(0);
    at..at.saturating_add(u64::try_from(p.compressed_page_size).unwrap_or(0))
}

/// The series being put together; it may span pages and row groups.
#[derive(Default)]
struct Buffer {
    narrow: Vec<i32>,
    wide: Vec<i64>,
    double: Vec<f64>,
    /// The next row of the series that was begun.
    open: Option<u64>,
}

fn decode_group(
    group: &Group,
    column: Column,
    object: &Arc<SparseObject>,
    pages: Vec<PageLocation>,
    wanted: &[Wanted],
    stats: &ReadStats,
    buffer: &mut Buffer,
    f: &mut impl FnMut(usize, Numbers<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let first_rows: Vec<u64> =
        pages.iter().map(|p| u64::try_from(p.first_row_index).unwrap_or(0) + group.rows.start).collect();
    let rows_of_group = usize::try_from(group.rows.end - group.rows.start).map_err(|e| e.to_string())?;
    let mut reader = page_reader(&group.columns[column as usize - 1].chunk, object, pages, rows_of_group)?;
    let mut series = wanted.iter();
    let mut current = series.next();
    for page_start in first_rows {
        let page = reader.get_next_page().map_err(|e| e.to_string())?.ok_or("a page is missing")?;
        ReadStats::add(&stats.pages_decoded, 1);
        let planes = Planes::of(&page, column)?;
        let page_end = page_start + planes.rows as u64;
        while let Some(w) = current {
            let start = buffer.open.unwrap_or(w.rows.start);
            if start >= page_end {
                break;
            }
            let from = start.checked_sub(page_start).ok_or("pages do not follow each other")? as usize;
            let to = (w.rows.end.min(page_end) - page_start) as usize;
            planes.append(column, from..to, buffer)?;
            if w.rows.end > page_end {
                buffer.open = Some(page_end);
                break;
            }
            buffer.open = None;
            f(w.tag, buffer.numbers(column))?;
            buffer.clear();
            current = series.next();
        }
    }
    // What is open goes on in the next row group.
    match current {
        Some(w) if buffer.open != Some(group.rows.end) => Err(format!("rows {:?} are in no page", w.rows)),
        _ => Ok(()),
    }
}

impl Buffer {
    fn numbers(&self, column: Column) -> Numbers<'_> {
        match column {
            Column::Narrow => Numbers::Narrow(&self.narrow),
            Column::Wide => Numbers::Wide(&self.wide),
            Column::Double => Numbers::Double(&self.double),
        }
    }

    fn clear(&mut self) {
        self.narrow.clear();
        self.wide.clear();
        self.double.clear();
    }
}

fn page_reader(
    chunk: &ColumnChunkMetaData,
    object: &Arc<SparseObject>,
    pages: Vec<PageLocation>,
    rows: usize,
) -> Result<SerializedPageReader<SparseObject>, String> {
    // The reader takes whatever lies before the first page of its list for a dictionary; there is none.
    let first = pages.first().map_or(0, |p| p.offset);
    let chunk =
        chunk.clone().into_builder().set_data_page_offset(first).set_dictionary_page_offset(None).build();
    let chunk = chunk.map_err(|e| e.to_string())?;
    SerializedPageReader::new(object.clone(), &chunk, rows, Some(pages)).map_err(|e| e.to_string())
}

/// The byte planes of a page.
struct Planes<'a> {
    bytes: &'a [u8],
    rows: usize,
}

impl<'a> Planes<'a> {
    fn of(page: &'a Page, column: Column) -> Result<Self, String> {
        let Page::DataPage { buf, num_values, encoding, .. } = page else {
            return Err("not a data page of version 1".into());
        };
        if *encoding != Encoding::BYTE_STREAM_SPLIT {
            return Err(format!("encoding {encoding:?}"));
        }
        Self::of_body(buf, *num_values as usize, column)
    }

    fn of_body(buf: &'a [u8], rows: usize, column: Column) -> Result<Self, String> {
        let bytes = after_levels(buf, rows)?;
        let width = if column == Column::Narrow { 4 } else { 8 };
        if bytes.len() != rows * width {
            return Err(format!("{} bytes for {rows} numbers of {width}", bytes.len()));
        }
        Ok(Self { bytes, rows })
    }

    fn append(&self, column: Column, rows: Range<usize>, out: &mut Buffer) -> Result<(), String> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err("rows outside of their page".into());
        }
        let plane = |i: usize| &self.bytes[i * self.rows..(i + 1) * self.rows][rows.clone()];
        match column {
            Column::Narrow => {
                let (a, b, c, d) = (plane(0), plane(1), plane(2), plane(3));
                let low = a.iter().zip(b).zip(c.iter().zip(d));
                out.narrow.extend(low.map(|((&a, &b), (&c, &d))| i32::from_le_bytes([a, b, c, d])));
            }
            Column::Wide => self.eight(plane, |x| out.wide.push(x as i64), rows.len()),
            Column::Double => self.eight(plane, |x| out.double.push(f64::from_bits(x)), rows.len()),
        }
        Ok(())
    }

    fn eight<'b>(&self, plane: impl Fn(usize) -> &'b [u8], mut f: impl FnMut(u64), n: usize) {
        const BLOCK: usize = 64;
        let planes: [&[u8]; 8] = std::array::from_fn(plane);
        let mut at = 0;
        while at < n {
            let len = BLOCK.min(n - at);
            let mut x = [0u64; BLOCK];
            for (i, plane) in planes.iter().enumerate() {
                for (x, &b) in x.iter_mut().zip(&plane[at..at + len]) {
                    *x |= u64::from(b) << (8 * i);
                }
            }
            x[..len].iter().for_each(|&x| f(x));
            at += len;
        }
    }
}

/// What follows the definition levels, which must say that no value is NULL.
fn after_levels(buf: &[u8], rows: usize) -> Result<&[u8], String> {
    let (len, rest) = buf.split_first_chunk::<4>().ok_or("a page without levels")?;
    let (mut levels, values) =
        rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or("levels longer than the page")?;
    let mut seen = 0usize;
    while !levels.is_empty() {
        let mut header = 0usize;
        for shift in (0..35).step_by(7) {
            let (&byte, tail) = levels.split_first().ok_or("cut levels")?;
            levels = tail;
            header |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        let (&level, tail) = levels.split_first().ok_or("cut levels")?;
        levels = tail;
        if header & 1 == 1 || level != 1 {
            return Err("a NULL where a number was expected".into());
        }
        seen = seen.saturating_add(header >> 1);
    }
    if seen == rows { Ok(values) } else { Err(format!("{seen} levels for {rows} rows")) }
}

/// Decodes a whole page body in each of the columns; whether one of them accepts it.
pub fn read_page(body: &[u8], rows: usize) -> bool {
    let columns = [Column::Narrow, Column::Wide, Column::Double];
    columns.into_iter().any(|column| {
        let mut out = Buffer::default();
        Planes::of_body(body, rows, column).is_ok_and(|p| p.append(column, 0..rows, &mut out).is_ok())
    })
}
