//! Some rows of a file as they were read: the values of each column, row by row.

use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;

use super::Error;
use super::schema::{Column, SPECS, Spec};

/// Rows.
pub(super) struct Columns {
    pub(super) rows: usize,
    /// By [`Column`].
    pub(super) cells: Vec<Cells>,
}

/// Rows of one column.
pub(super) struct Cells {
    spec: &'static Spec,
    rep: Vec<i16>,
    def: Vec<i16>,
    values: Values,
    /// Where each row begins among levels and values; and where the last one ends.
    starts: Vec<(u32, u32)>,
}

enum Values {
    Texts(Vec<ByteArray>),
    Ints(Vec<i64>),
    Doubles(Vec<f64>),
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Held<'c> {
    Text(&'c [u8]),
    Int(i64),
    Double(f64),
}

/// A value or its absence, and where in lists it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'c> {
    pub(super) rep: u8,
    pub(super) def: u8,
    pub(super) value: Option<Held<'c>>,
}

impl Columns {
    /// Reads the next `rows` rows.
    pub(super) fn read(readers: &mut [ColumnReader], rows: usize) -> Result<Self, Error> {
        let read = |(reader, spec)| Cells::read(reader, spec, rows);
        let cells = readers.iter_mut().zip(SPECS).map(read).collect::<Result<_, _>>()?;
        Ok(Self { rows, cells })
    }

    fn one(&self, column: Column, row: usize) -> Option<Held<'_>> {
        self.cells.get(column as usize)?.row(row).next()?.value
    }

    /// The text of a column that is neither list nor map.
    pub(super) fn text(&self, column: Column, row: usize) -> Result<Option<&str>, Error> {
        match self.one(column, row) {
            Some(Held::Text(text)) => utf8(text).map(Some),
            _ => Ok(None),
        }
    }

    /// The number of such a column.
    pub(super) fn int(&self, column: Column, row: usize) -> Option<i64> {
        match self.one(column, row) {
            Some(Held::Int(int)) => Some(int),
            _ => None,
        }
    }

    /// What a column of a list or map has in a row.
    pub(super) fn list(&self, column: Column, row: usize) -> impl Iterator<Item = Cell<'_>> {
        self.cells.get(column as usize).into_iter().flat_map(move |cells| cells.row(row))
    }
}

/// Text that must be UTF-8.
pub(super) fn utf8(text: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(text).map_err(|_| Error::Damaged("a text is not UTF-8"))
}

impl Cells {
    fn read(reader: &mut ColumnReader, spec: &'static Spec, rows: usize) -> Result<Self, Error> {
        let (mut rep, mut def) = (Vec::new(), Vec::new());
        let mut read = 0;
        macro_rules! all {
            ($reader:expr, $kind:ident) => {{
                let mut values = Vec::new();
                while read < rows {
                    let (more, ..) = $reader.read_records(rows - read, Some(&mut def), Some(&mut rep), &mut values)?;
                    if more == 0 {
                        return Err(Error::Damaged("a column has too few rows"));
                    }
                    read += more;
                }
                Values::$kind(values)
            }};
        }
        let values = match reader {
            ColumnReader::ByteArrayColumnReader(reader) => all!(reader, Texts),
            ColumnReader::Int64ColumnReader(reader) => all!(reader, Ints),
            ColumnReader::DoubleColumnReader(reader) => all!(reader, Doubles),
            _ => return Err(Error::Damaged("a column has another type")),
        };
        let mut cells = Self { spec, rep, def, values, starts: Vec::with_capacity(rows + 1) };
        cells.find_starts(rows)?;
        Ok(cells)
    }

    fn find_starts(&mut self, rows: usize) -> Result<(), Error> {
        let values = match &self.values {
            Values::Texts(texts) => texts.len(),
            Values::Ints(ints) => ints.len(),
            Values::Doubles(doubles) => doubles.len(),
        };
        let levels = if self.spec.def_max > 0 { self.def.len() } else { values };
        let mut value = 0;
        for level in 0..levels {
            if self.spec.rep_max == 0 || self.rep.get(level) == Some(&0) {
                self.starts.push((level as u32, value));
            }
            value += u32::from(self.is_there(level));
        }
        self.starts.push((levels as u32, value));
        let is_whole = self.starts.len() == rows + 1 && value as usize == values;
        is_whole.then_some(()).ok_or(Error::Damaged("a column's levels do not fit its values"))
    }

    fn is_there(&self, level: usize) -> bool {
        self.spec.def_max == 0 || self.def.get(level) == Some(&i16::from(self.spec.def_max))
    }

    /// What a row has.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = Cell<'_>> {
        let end = self.starts.get(row + 1).map_or(0, |end| end.0);
        let (from, mut value) = self.starts.get(row).copied().unwrap_or((end, 0));
        (from..end).map(move |level| {
            let level = level as usize;
            let number = |levels: &[i16]| levels.get(level).map_or(0, |&level| level as u8);
            let mut cell = Cell { rep: number(&self.rep), def: number(&self.def), value: None };
            if self.is_there(level) {
                cell.value = self.value(value as usize);
                value += 1;
            }
            cell
        })
    }

    fn value(&self, at: usize) -> Option<Held<'_>> {
        match &self.values {
            Values::Texts(texts) => texts.get(at).map(|text| Held::Text(text.data())),
            Values::Ints(ints) => ints.get(at).map(|&int| Held::Int(int)),
            Values::Doubles(doubles) => doubles.get(at).map(|&double| Held::Double(double)),
        }
    }
}
