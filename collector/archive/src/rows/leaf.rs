//! One column of one row group being written: values to pages, pages to a chunk.
//!
//! On disk: data pages of version 1 (levels before values, compressed as one), a dictionary page before them, statistics of texts by
//! number and of numbers, an offset index always and a column index where there are statistics.
//! Not here: what a value means (`fill`), where a chunk lies in the file (`table`).

use std::collections::VecDeque;
use std::io::Read;

use bytes::{Buf, Bytes};
use parquet::basic::{BoundaryOrder, Compression, Encoding, PageType, Type, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::schema::types::ColumnDescPtr;

use super::cells::{Cells, Held};
use super::dict::Dict;
use super::pack::{put_delta, put_hybrid, put_varint, width_of};
use super::schema::{Coding, Spec};

/// A page ends when its values have so many bytes: of what has less than 128 KiB zstd keeps smaller tables, and packs less.
const PAGE_BYTES: usize = 256 << 10;
/// Or when it has so many rows.
const PAGE_ROWS: u64 = 8_192;
/// What is beyond goes into pages without a dictionary.
const DICT_BYTES: usize = 1 << 20;
/// Room before the texts of a page for its levels, so that they need not be moved.
const HEAD_BYTES: usize = 4 << 10;
/// Texts that a dictionary has at least before it is asked whether it pays: it does not where most texts are new.
const DICT_TRIAL: usize = 8_192;
/// The longest header of a page.
const HEADER_BYTES: usize = 48;
/// Statistics of texts are cut to so many bytes.
const STATISTICS_BYTES: usize = 64;
/// A bloom filter while its group is being written; at its end it is folded to what its texts need.
const BLOOM_BYTES: usize = 128 << 10;
/// How often a filter may say that a text is there which is not.
const BLOOM_WRONG: f64 = 0.01;

/// Compresses pages; what it holds is used again from one to the next.
pub(super) struct Press {
    zstd: zstd::bulk::Compressor<'static>,
    /// A page as it is, and as it is compressed.
    plain: Vec<u8>,
    small: Vec<u8>,
}

impl Press {
    pub(super) fn new(level: i32) -> std::io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Compressor::new(level)?, plain: Vec::new(), small: Vec::new() })
    }

    /// What it holds in memory, zstd's own tables included.
    pub(super) fn bytes(&self) -> usize {
        const ZSTD: usize = 1 << 20;
        ZSTD + self.plain.capacity() + self.small.capacity()
    }

    /// Compresses `plain` into `small`.
    fn squeeze(zstd: &mut zstd::bulk::Compressor<'static>, plain: &[u8], small: &mut Vec<u8>) -> std::io::Result<()> {
        small.clear();
        small.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        zstd.compress_to_buffer(plain, small).map(drop)
    }
}

/// A chunk's pages, read from their beginning.
pub(super) struct Chunk(Vec<Bytes>);

impl Length for Chunk {
    fn len(&self) -> u64 {
        self.0.iter().map(|page| page.len() as u64).sum()
    }
}

impl ChunkReader for Chunk {
    type T = Pages;

    fn get_read(&self, start: u64) -> Result<Pages, ParquetError> {
        let mut pages = Pages(self.0.clone().into_iter().collect());
        let mut left = start as usize;
        while let Some(page) = pages.0.front_mut() {
            let some = left.min(page.len());
            page.advance(some);
            left -= some;
            if left == 0 {
                break;
            }
            pages.0.pop_front();
        }
        Ok(pages)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = vec![0; length];
        self.get_read(start)?.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// Pages one after the other.
pub(super) struct Pages(VecDeque<Bytes>);

impl Read for Pages {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while let Some(page) = self.0.front_mut() {
            let some = page.len().min(into.len());
            if some > 0 || into.is_empty() {
                page.copy_to_slice(&mut into[..some]);
                return Ok(some);
            }
            self.0.pop_front();
        }
        Ok(0)
    }
}

/// The values of the page that is being filled.
enum Values {
    Texts { dict: Option<Dict>, by_number: bool, numbers: Vec<u32>, plain: Vec<u8>, count: u64 },
    Ints(Vec<i64>),
    Doubles(Vec<f64>),
}

/// The column.
pub(super) struct Leaf {
    spec: &'static Spec,
    rep: Vec<u8>,
    def: Vec<u8>,
    values: Values,
    /// Rows of the group before the page.
    rows_before: u64,
    /// The finished pages, each as long as it is: one buffer for all would be copied each time that it grows.
    pages: Vec<Bytes>,
    written: usize,
    index: Vec<PageNote>,
    levels: u64,
    /// Values in pages by number.
    numbered: u64,
    plain_bytes: u64,
    bloom: Option<Sbbf>,
}

/// What is known of a finished page.
struct PageNote {
    at: usize,
    len: usize,
    rows: u64,
    nulls: u64,
    is_empty: bool,
    by_number: bool,
    /// The least and the greatest value, as the format writes them plain.
    bounds: Option<(Vec<u8>, Vec<u8>)>,
}

impl Leaf {
    pub(super) fn new(spec: &'static Spec) -> Self {
        let values = match spec.coding {
            Coding::Plain | Coding::Dict => Values::Texts {
                dict: (spec.coding == Coding::Dict).then(Dict::new),
                by_number: spec.coding == Coding::Dict,
                numbers: Vec::new(),
                plain: vec![0; HEAD_BYTES],
                count: 0,
            },
            Coding::Int => Values::Ints(Vec::new()),
            Coding::Double => Values::Doubles(Vec::new()),
        };
        Self {
            spec,
            rep: Vec::new(),
            def: Vec::new(),
            values,
            rows_before: 0,
            pages: Vec::new(),
            written: 0,
            index: Vec::new(),
            levels: 0,
            numbered: 0,
            plain_bytes: 0,
            bloom: spec.bloom.then(|| Sbbf::new_with_num_of_bytes(BLOOM_BYTES)),
        }
    }

    /// What it holds in memory.
    pub(super) fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Texts { dict, numbers, plain, .. } => {
                dict.as_ref().map_or(0, Dict::bytes) + 4 * numbers.capacity() + plain.capacity()
            }
            Values::Ints(ints) => 8 * ints.capacity(),
            Values::Doubles(doubles) => 8 * doubles.capacity(),
        };
        let bloom = if self.bloom.is_some() { BLOOM_BYTES } else { 0 };
        values + bloom + self.rep.capacity() + self.def.capacity() + self.written
    }

    /// How long its chunk would be if it ended here, about.
    pub(super) fn written(&self) -> usize {
        self.written
    }

    /// The levels of the next value, or of its absence.
    #[inline]
    pub(super) fn level(&mut self, rep: u8, def: u8) {
        if self.spec.rep_max > 0 {
            self.rep.push(rep);
        }
        if self.spec.def_max > 0 {
            self.def.push(def);
        }
    }

    /// So many rows without anything in a list or map.
    pub(super) fn nothing(&mut self, rows: usize) {
        self.rep.resize(self.rep.len() + rows, 0);
        self.def.resize(self.def.len() + rows, 0);
    }

    /// The key of a pair of map `map`: whether that has none like it yet, and so got it; none where that must be found out in another way.
    #[inline]
    pub(super) fn key(&mut self, rep: u8, def: u8, text: &[u8], map: u32) -> Option<bool> {
        let Values::Texts { dict: Some(dict), by_number: true, numbers, count, .. } = &mut self.values else {
            return None;
        };
        let number = dict.number(text);
        let is_new = dict.is_new_in_map(number, map);
        if is_new {
            numbers.push(number);
            *count += 1;
            self.rep.push(rep);
            self.def.push(def);
        }
        Some(is_new)
    }

    #[inline]
    pub(super) fn text(&mut self, text: &[u8]) {
        if let Values::Texts { dict, by_number, numbers, plain, count } = &mut self.values {
            *count += 1;
            match dict {
                Some(dict) if *by_number => {
                    let known = dict.len();
                    numbers.push(dict.number(text));
                    if dict.len() == known {
                        return;
                    }
                }
                _ => {
                    plain.extend_from_slice(&(text.len() as u32).to_le_bytes());
                    plain.extend_from_slice(text);
                }
            }
            if let Some(bloom) = &mut self.bloom {
                bloom.insert(text);
            }
        }
    }

    /// A text that `write` appends to what it is given.
    #[inline]
    pub(super) fn text_with(&mut self, scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        match &mut self.values {
            Values::Texts { by_number: false, plain, count, .. } if self.bloom.is_none() => {
                *count += 1;
                let start = plain.len();
                plain.extend_from_slice(&[0; 4]);
                write(plain);
                let len = (plain.len() - start - 4) as u32;
                plain[start..start + 4].copy_from_slice(&len.to_le_bytes());
            }
            _ => {
                scratch.clear();
                write(scratch);
                self.text(scratch);
            }
        }
    }

    #[inline]
    pub(super) fn int(&mut self, int: i64) {
        if let Values::Ints(ints) = &mut self.values {
            ints.push(int);
        }
    }

    #[inline]
    pub(super) fn double(&mut self, double: f64) {
        if let Values::Doubles(doubles) = &mut self.values {
            doubles.push(double);
        }
    }

    /// What a row of another file has in this column; says how many bytes of text that is.
    pub(super) fn copy(&mut self, cells: &Cells, row: usize) -> usize {
        let mut bytes = 0;
        for cell in cells.row(row) {
            self.level(cell.rep, cell.def);
            match cell.value {
                Some(Held::Text(text)) => {
                    bytes += text.len();
                    self.text(text);
                }
                Some(Held::Int(int)) => self.int(int),
                Some(Held::Double(double)) => self.double(double),
                None => {}
            }
        }
        bytes
    }

    /// Ends the page if it is full; `rows` are those of the group so far.
    pub(super) fn settle(&mut self, rows: u64, press: &mut Press) -> Result<(), ParquetError> {
        let bytes = match &self.values {
            Values::Texts { numbers, plain, .. } => 2 * numbers.len() + plain.len() - HEAD_BYTES,
            Values::Ints(ints) => 8 * ints.len(),
            Values::Doubles(doubles) => 8 * doubles.len(),
        };
        let is_full = bytes >= PAGE_BYTES || rows - self.rows_before >= PAGE_ROWS;
        let is_dict_full = matches!(&self.values, Values::Texts { dict: Some(dict), by_number: true, numbers, .. }
            if dict.page().len() >= DICT_BYTES
                || dict.len() >= DICT_TRIAL && 3 * dict.len() as u64 > 2 * (self.numbered + numbers.len() as u64));
        if is_full || is_dict_full {
            self.end_page(rows, press)?;
        }
        if is_dict_full && let Values::Texts { by_number, .. } = &mut self.values {
            *by_number = false;
        }
        Ok(())
    }

    fn end_page(&mut self, rows: u64, press: &mut Press) -> Result<(), ParquetError> {
        let page = self.index.len() as u32 + 1;
        press.plain.clear();
        if self.spec.rep_max > 0 {
            put_levels(&mut press.plain, &self.rep, self.spec.rep_max);
        }
        if self.spec.def_max > 0 {
            put_levels(&mut press.plain, &self.def, self.spec.def_max);
        }
        let by_number = matches!(&self.values, Values::Texts { by_number: true, .. });
        let room = HEAD_BYTES.checked_sub(press.plain.len());
        let (encoding, bounds, count, page) = match (&mut self.values, room) {
            (Values::Texts { by_number: false, plain, count, .. }, Some(room)) => {
                plain[room..HEAD_BYTES].copy_from_slice(&press.plain);
                (Encoding::PLAIN, None, std::mem::take(count), &plain[room..])
            }
            (values, _) => {
                let (encoding, bounds, count) = put_values(&mut press.plain, values, page);
                (encoding, bounds, count, &press.plain[..])
            }
        };
        let levels = if self.spec.def_max > 0 { self.def.len() as u64 } else { count };
        let at = self.written;
        let uncompressed = page.len();
        let body = if self.spec.zstd {
            Press::squeeze(&mut press.zstd, page, &mut press.small)?;
            &press.small
        } else {
            page
        };
        let mut whole = Vec::with_capacity(HEADER_BYTES + body.len());
        put_header(&mut whole, PageType::DATA_PAGE, uncompressed, body.len(), levels, encoding);
        let header = whole.len();
        whole.extend_from_slice(body);
        let len = whole.len();
        self.written += len;
        self.pages.push(whole.into());
        self.plain_bytes += (header + uncompressed) as u64;
        self.levels += levels;
        self.numbered += if by_number { count } else { 0 };
        self.index.push(PageNote {
            at,
            len,
            rows: rows - self.rows_before,
            nulls: levels - count,
            is_empty: count == 0,
            by_number,
            bounds,
        });
        self.rows_before = rows;
        self.rep.clear();
        self.def.clear();
        if let Values::Texts { plain, .. } = &mut self.values {
            plain.truncate(HEAD_BYTES);
        }
        Ok(())
    }

    /// The chunk of `rows` rows: its bytes and what the file says of it.
    pub(super) fn finish(
        mut self,
        descr: ColumnDescPtr,
        rows: u64,
        press: &mut Press,
    ) -> Result<(Chunk, ColumnCloseResult), ParquetError> {
        if rows > self.rows_before || self.index.is_empty() {
            self.end_page(rows, press)?;
        }
        let numbered = self.index.iter().filter(|page| page.by_number).count();
        let mut first = Vec::new();
        if numbered > 0
            && let Values::Texts { dict: Some(dict), .. } = &self.values
        {
            Press::squeeze(&mut press.zstd, dict.page(), &mut press.small)?;
            let (plain, small) = (dict.page().len(), press.small.len());
            put_header(&mut first, PageType::DICTIONARY_PAGE, plain, small, dict.len() as u64, Encoding::PLAIN);
            self.plain_bytes += (first.len() + plain) as u64;
            first.extend_from_slice(&press.small);
        }
        let dictionary = first.len();
        self.written += dictionary;
        let metadata = self.metadata(descr, dictionary, self.written, numbered)?;
        let mut offsets = OffsetIndexBuilder::new();
        for page in &self.index {
            offsets.append_row_count(page.rows as i64);
            offsets.append_offset_and_size((dictionary + page.at) as i64, page.len as i32);
        }
        let close = ColumnCloseResult {
            bytes_written: self.written as u64,
            rows_written: rows,
            metadata,
            bloom_filter: self.bloom.take().map(|mut bloom| {
                bloom.fold_to_target_fpp(BLOOM_WRONG);
                bloom
            }),
            column_index: self.column_index()?,
            offset_index: Some(offsets.build()),
        };
        let mut pages = vec![Bytes::from(first)];
        pages.append(&mut self.pages);
        Ok((Chunk(pages), close))
    }

    fn metadata(
        &self,
        descr: ColumnDescPtr,
        dictionary: usize,
        len: usize,
        numbered: usize,
    ) -> Result<ColumnChunkMetaData, ParquetError> {
        let of_values = match self.spec.coding {
            Coding::Plain | Coding::Dict | Coding::Double => Encoding::PLAIN,
            Coding::Int => Encoding::DELTA_BINARY_PACKED,
        };
        let mut encodings = vec![of_values, Encoding::RLE];
        let stats = |page_type, encoding, count: usize| PageEncodingStats { page_type, encoding, count: count as i32 };
        let mut pages = Vec::new();
        if numbered > 0 {
            encodings.push(Encoding::RLE_DICTIONARY);
            pages.push(stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1));
            pages.push(stats(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, numbered));
        }
        if numbered < self.index.len() {
            pages.push(stats(PageType::DATA_PAGE, of_values, self.index.len() - numbered));
        }
        // The level is not written anywhere; the codec is.
        let codec = if self.spec.zstd { Compression::ZSTD(ZstdLevel::default()) } else { Compression::UNCOMPRESSED };
        let builder = ColumnChunkMetaData::builder(descr)
            .set_compression(codec)
            .set_encodings(encodings)
            .set_page_encoding_stats(pages)
            .set_num_values(self.levels as i64)
            .set_total_compressed_size(len as i64)
            .set_total_uncompressed_size(self.plain_bytes as i64)
            .set_dictionary_page_offset((dictionary > 0).then_some(0))
            .set_data_page_offset(dictionary as i64);
        builder.set_statistics(self.statistics()).build()
    }

    /// The least and the greatest of all pages; none if that of a page with values is not known.
    fn bounds(&self) -> Option<(&[u8], &[u8])> {
        let mut bounds: Option<(&[u8], &[u8])> = None;
        for page in self.index.iter().filter(|page| !page.is_empty) {
            let (low, high) = page.bounds.as_ref()?;
            let (least, most) = bounds.unwrap_or((low, high));
            bounds = Some((
                if self.is_less(low, least) { low } else { least },
                if self.is_less(most, high) { high } else { most },
            ));
        }
        bounds
    }

    fn is_less(&self, one: &[u8], other: &[u8]) -> bool {
        match self.spec.coding {
            Coding::Int => int_of(one) < int_of(other),
            Coding::Double => f64::from_bits(int_of(one) as u64) < f64::from_bits(int_of(other) as u64),
            Coding::Plain | Coding::Dict => one < other,
        }
    }

    fn statistics(&self) -> Statistics {
        let nulls = Some(self.index.iter().map(|page| page.nulls).sum());
        let bounds = self.bounds();
        match self.spec.coding {
            Coding::Int => {
                let of = |bytes| Some(int_of(bytes));
                let (min, max) = bounds.map_or((None, None), |(min, max)| (of(min), of(max)));
                Statistics::Int64(ValueStatistics::new(min, max, None, nulls, false))
            }
            Coding::Double => {
                let of = |bytes| Some(f64::from_bits(int_of(bytes) as u64));
                let (min, max) = bounds.map_or((None, None), |(min, max)| (of(min), of(max)));
                Statistics::Double(ValueStatistics::new(min, max, None, nulls, false))
            }
            Coding::Plain | Coding::Dict => {
                let cut = bounds.and_then(|(min, max)| Some((cut_down(min), cut_up(max)?)));
                let of = |text: &[u8]| Some(ByteArray::from(text.to_vec()));
                let (min, max) = cut.as_ref().map_or((None, None), |(min, max)| (of(min), of(max)));
                let is_exact = bounds.is_some_and(|(min, max)| min.len().max(max.len()) <= STATISTICS_BYTES);
                let values = ValueStatistics::new(min, max, None, nulls, false);
                Statistics::ByteArray(values.with_min_is_exact(is_exact).with_max_is_exact(is_exact))
            }
        }
    }

    fn column_index(
        &self,
    ) -> Result<Option<parquet::file::page_index::column_index::ColumnIndexMetaData>, ParquetError> {
        let physical = match self.spec.coding {
            Coding::Plain | Coding::Dict => Type::BYTE_ARRAY,
            Coding::Int => Type::INT64,
            Coding::Double => Type::DOUBLE,
        };
        let nans = (physical == Type::DOUBLE).then_some(0);
        let mut builder = ColumnIndexBuilder::new(physical);
        let mut last: Option<&[u8]> = None;
        let mut is_ascending = true;
        for page in &self.index {
            let bounds = match (&page.bounds, page.is_empty) {
                (_, true) => Some((Vec::new(), Vec::new())),
                (Some((low, high)), _) if physical == Type::BYTE_ARRAY => {
                    cut_up(high).map(|high| (cut_down(low), high))
                }
                (bounds, _) => bounds.clone(),
            };
            let Some((low, high)) = bounds else { return Ok(None) };
            if let Some((low, high)) = &page.bounds {
                is_ascending &= last.is_none_or(|last| !self.is_less(low, last));
                last = Some(high);
            }
            builder.append(page.is_empty, low, high, page.nulls as i64, nans);
        }
        builder.set_boundary_order(if is_ascending { BoundaryOrder::ASCENDING } else { BoundaryOrder::UNORDERED });
        builder.build().map(Some)
    }
}

fn int_of(bytes: &[u8]) -> i64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| i64::from_le_bytes(*bytes))
}

/// A text's beginning, which is not greater.
fn cut_down(text: &[u8]) -> Vec<u8> {
    let cut = text.len().min(STATISTICS_BYTES);
    std::str::from_utf8(text).map_or(&text[..cut], |text| &text.as_bytes()[..text.floor_char_boundary(cut)]).to_vec()
}

/// A short text that is not less; none if there is none that is still UTF-8.
fn cut_up(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() <= STATISTICS_BYTES {
        return Some(text.to_vec());
    }
    let mut cut = cut_down(text);
    // The last ASCII character that has a next one is raised: whatever follows it is then less.
    let at = cut.iter().rposition(|&byte| byte < 0x7f)?;
    cut.truncate(at + 1);
    cut[at] += 1;
    Some(cut)
}

fn put_levels(out: &mut Vec<u8>, levels: &[u8], most: u8) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    put_hybrid(out, levels, width_of(u32::from(most)));
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

type Bounds = Option<(Vec<u8>, Vec<u8>)>;

/// Appends the values of a page and forgets them; says how they lie, their bounds and how many there were.
fn put_values(out: &mut Vec<u8>, values: &mut Values, page: u32) -> (Encoding, Bounds, u64) {
    match values {
        Values::Texts { dict: Some(dict), by_number: true, numbers, count, .. } => {
            let mut bounds: Option<(u32, u32)> = None;
            for &number in &*numbers {
                if dict.is_new_in(number, page) {
                    let (low, high) = bounds.unwrap_or((number, number));
                    let text = dict.text(number);
                    bounds = Some((
                        if text < dict.text(low) { number } else { low },
                        if text > dict.text(high) { number } else { high },
                    ));
                }
            }
            let width = width_of((dict.len() as u32).saturating_sub(1));
            out.push(width as u8);
            put_hybrid(out, numbers, width);
            numbers.clear();
            let texts = bounds.map(|(low, high)| (dict.text(low).to_vec(), dict.text(high).to_vec()));
            (Encoding::RLE_DICTIONARY, texts, std::mem::take(count))
        }
        Values::Texts { plain, count, .. } => {
            out.extend_from_slice(&plain[HEAD_BYTES..]);
            (Encoding::PLAIN, None, std::mem::take(count))
        }
        Values::Ints(ints) => {
            put_delta(out, ints);
            let least = ints.iter().min().map(|least| least.to_le_bytes().to_vec());
            let most = ints.iter().max().map(|most| most.to_le_bytes().to_vec());
            let count = ints.len() as u64;
            ints.clear();
            (Encoding::DELTA_BINARY_PACKED, least.zip(most), count)
        }
        Values::Doubles(doubles) => {
            out.extend(doubles.iter().flat_map(|double| double.to_le_bytes()));
            let least = doubles.iter().copied().min_by(f64::total_cmp).map(|least| least.to_le_bytes().to_vec());
            let most = doubles.iter().copied().max_by(f64::total_cmp).map(|most| most.to_le_bytes().to_vec());
            let count = doubles.len() as u64;
            doubles.clear();
            (Encoding::PLAIN, least.zip(most), count)
        }
    }
}

/// Appends a page's header: Thrift's compact protocol, field by field.
fn put_header(out: &mut Vec<u8>, kind: PageType, plain: usize, small: usize, values: u64, encoding: Encoding) {
    let number = |out: &mut Vec<u8>, step: u8, value: u64| {
        out.push(step << 4 | 5);
        // A number of 32 bits that is not negative, zigzag.
        put_varint(out, value << 1);
    };
    let is_dictionary = kind == PageType::DICTIONARY_PAGE;
    number(out, 1, kind as u64);
    number(out, 1, plain as u64);
    number(out, 1, small as u64);
    out.push(if is_dictionary { 4 } else { 2 } << 4 | 12);
    number(out, 1, values);
    number(out, 1, encoding as u64);
    if !is_dictionary {
        number(out, 1, Encoding::RLE as u64);
        number(out, 1, Encoding::RLE as u64);
    }
    out.extend_from_slice(&[0, 0]);
}
