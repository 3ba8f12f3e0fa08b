//! The language's functions that make as much as they are told to: ours ask whether there is room first.

use rhai::plugin::*;
use rhai::{Array, Blob, ImmutableString, NativeCallContext};

use super::failure::{At, Failure, Fallible};
use super::runtime::Runtime;

/// Asks for `count` pieces of `size` bytes; what can be counted.
fn room(ctx: &NativeCallContext, count: i64, size: usize) -> Fallible<usize> {
    let count = u64::try_from(count).unwrap_or(0);
    Runtime::of(ctx)?.room(count.saturating_mul(size as u64)).at(ctx)?;
    usize::try_from(count).map_err(|_| Failure::Stopped.at(ctx))
}

/// Puts `by` in the place of each `found`.
fn replaced(ctx: &NativeCallContext, text: &str, found: &str, by: &str) -> Fallible<ImmutableString> {
    if by.len() > found.len() {
        let count = text.matches(found).count();
        room(ctx, i64::try_from(count).unwrap_or(i64::MAX), by.len())?;
    }
    Ok(text.replace(found, by).into())
}

/// Texts, arrays and bytes that are made longer.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod growing_functions {
    /// So many bytes that are 0.
    ///
    /// ```rhai
    /// print(blob(3).len());   // 3
    /// ```
    #[rhai_fn(return_raw)]
    pub fn blob(ctx: NativeCallContext, count: i64) -> Fallible<Blob> {
        blob_of(ctx, count, 0)
    }

    /// So many bytes of one value, 0 to 255.
    ///
    /// ```rhai
    /// print(blob(2, 65).as_string());   // AA
    /// ```
    #[rhai_fn(name = "blob", return_raw)]
    pub fn blob_of(ctx: NativeCallContext, count: i64, value: i64) -> Fallible<Blob> {
        let count = room(&ctx, count, 1)?;
        // Larger numbers count from 0 again, as in the language's other functions on bytes.
        Ok(vec![value.to_le_bytes()[0]; count])
    }

    /// Makes bytes as many as `count` by bytes of one value at their end.
    /// Error: it would be larger than a script may make it.
    ///
    /// ```rhai
    /// let b = blob(1, 65);
    /// b.pad(3, 66);
    /// print(b.as_string());   // ABB
    /// ```
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_blob(ctx: NativeCallContext, bytes: &mut Blob, count: i64, value: i64) -> Fallible<()> {
        let count = room(&ctx, count, 1)?;
        if count > bytes.len() {
            bytes.resize(count, value.to_le_bytes()[0]);
        }
        Ok(())
    }

    /// Makes an array as long as `count` by copies of a value at its end.
    /// Error: it would be larger than a script may make it.
    ///
    /// ```rhai
    /// let a = [1];
    /// a.pad(3, 0);
    /// print(to_json(a));   // [1,0,0]
    /// ```
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_array(ctx: NativeCallContext, array: &mut Array, count: i64, value: Dynamic) -> Fallible<()> {
        let count = room(&ctx, count, size_of::<Dynamic>())?;
        if count > array.len() {
            array.resize(count, value);
        }
        Ok(())
    }

    /// Makes a text as long as `count` letters by one letter at its end. It changes the original.
    /// Error: it would be larger than a script may make it.
    ///
    /// ```rhai
    /// let t = "milk";
    /// t.pad(6, '.');
    /// print(t);   // milk..
    /// ```
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_text(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        count: i64,
        letter: char,
    ) -> Fallible<()> {
        pad_with(ctx, text, count, &letter.to_string())
    }

    /// Makes a text at least as long as `count` letters by copies of another at its end. It changes the original.
    /// Error: it would be larger than a script may make it.
    ///
    /// ```rhai
    /// let t = "milk";
    /// t.pad(7, "ab");
    /// print(t);   // milkabab
    /// ```
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_with(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        count: i64,
        by: &str,
    ) -> Fallible<()> {
        let count = room(&ctx, count, by.len())?;
        let (has, step) = (text.chars().count(), by.chars().count());
        if step > 0 && count > has {
            let by = by.repeat((count - has).div_ceil(step));
            *text = format!("{text}{by}").into();
        }
        Ok(())
    }

    /// Puts one text in the place of each occurrence of another. It changes the original.
    /// Error: it would be larger than a script may make it.
    ///
    /// ```rhai
    /// let t = "milk and milk";
    /// t.replace("milk", "tea");
    /// print(t);   // tea and tea
    /// ```
    #[rhai_fn(return_raw)]
    pub fn replace(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        found: &str,
        by: &str,
    ) -> Fallible<()> {
        *text = replaced(&ctx, text, found, by)?;
        Ok(())
    }

    /// Puts a text in the place of each occurrence of a letter. It changes the original.
    /// Error: it would be larger than a script may make it.
    ///
    /// ```rhai
    /// let t = "a-b";
    /// t.replace('-', " to ");
    /// print(t);   // a to b
    /// ```
    #[rhai_fn(name = "replace", return_raw)]
    pub fn replace_letter(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        found: char,
        by: &str,
    ) -> Fallible<()> {
        *text = replaced(&ctx, text, &found.to_string(), by)?;
        Ok(())
    }
}
