//! A safetensors file, written tensor by tensor: the whole model need not fit in memory twice.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::Error;
use super::source::{failed, io};

/// A tensor on its way into a file.
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its element type, as safetensors calls it.
    pub dtype: &'static str,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
    /// Bytes of all its elements.
    pub size: usize,
}

/// Writes a file with these tensors, in this order. `data` gives the elements of the n-th.
pub fn write<'a>(
    path: &Path,
    metadata: &[(&str, &str)],
    entries: &[Entry],
    mut data: impl FnMut(usize) -> Result<Cow<'a, [u8]>, Error>,
) -> Result<(), Error> {
    let mut header = Map::new();
    let metadata: Map<String, Value> = metadata
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.into()))
        .collect();
    header.insert("__metadata__".to_owned(), metadata.into());
    let mut at = 0;
    for entry in entries {
        let offsets = [at, at + entry.size];
        at += entry.size;
        let info = json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets});
        header.insert(entry.name.clone(), info);
    }
    let mut header = Value::from(header).to_string().into_bytes();
    // The elements begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::new(File::create(path).map_err(io(path))?);
    file.write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| file.write_all(&header))
        .map_err(io(path))?;
    for (n, entry) in entries.iter().enumerate() {
        let data = data(n)?;
        if data.len() != entry.size {
            let problem = format!(
                "{} has {} bytes, not {}",
                entry.name,
                data.len(),
                entry.size
            );
            return Err(failed(path, problem));
        }
        file.write_all(&data).map_err(io(path))?;
    }
    file.into_inner()
        .map_err(|error| io(path)(error.into_error()))?
        .sync_all()
        .map_err(io(path))
}
