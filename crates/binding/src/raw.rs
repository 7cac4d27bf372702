//! Raw N-API for the hot functions: a call through the macros costs 0.5-1.6 us, a raw one 0.03-0.1.

use std::ffi::{CStr, c_void};
use std::ptr;

use napi::sys;

/// An environment: one JavaScript thread.
pub(crate) type Env = sys::napi_env;
/// A JavaScript value, valid until the native call returns.
pub(crate) type Value = sys::napi_value;
/// What a raw function gets besides the environment.
pub(crate) type Info = sys::napi_callback_info;

/// What a raw function throws.
#[derive(Debug)]
pub(crate) struct Thrown {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Thrown {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// Arguments of a wrong type: only this package calls these functions, so this is a mistake of ours.
    pub(crate) fn argument(what: &str) -> Self {
        Self::new("INTERNAL", format!("internal: bad argument: {what}"))
    }
}

pub(crate) type Outcome = Result<Value, Thrown>;

/// Runs a raw function's body; what it throws becomes a JavaScript error with a `code`.
pub(crate) fn entry<const N: usize>(env: Env, info: Info, body: impl FnOnce(Scope, [Value; N]) -> Outcome) -> Value {
    let scope = Scope { env };
    let mut args = [ptr::null_mut(); N];
    let mut count = N;
    // SAFETY: `env` and `info` are those of the running call; `args` has room for `count` values, missing ones become undefined.
    unsafe { sys::napi_get_cb_info(env, info, &raw mut count, args.as_mut_ptr(), ptr::null_mut(), ptr::null_mut()) };
    match body(scope, args) {
        Ok(value) => value,
        Err(thrown) => {
            scope.throw(&thrown);
            ptr::null_mut()
        }
    }
}

/// Declares raw functions and the list of their names for the export hook.
macro_rules! raw_functions {
    ($($(#[$doc:meta])* fn $name:ident = $js:literal ($($arg:ident),*) |$scope:ident| $body:block)*) => {
        $(
            $(#[$doc])*
            // SAFETY (contract): called by the engine alone, with the environment and arguments of the running call.
            unsafe extern "C" fn $name(env: $crate::raw::Env, info: $crate::raw::Info) -> $crate::raw::Value {
                $crate::raw::entry(env, info, |$scope, [$($arg),*]| $body)
            }
        )*

        /// Exported name and function of each.
        pub(crate) const FUNCTIONS: &[(&std::ffi::CStr, napi::sys::napi_callback)] = &[$(($js, Some($name))),*];
    };
}
pub(crate) use raw_functions;

/// Defines the functions on the addon's exports.
pub(crate) fn export(env: Env, exports: Value, functions: &[(&CStr, sys::napi_callback)]) {
    for (name, function) in functions {
        let mut value = ptr::null_mut();
        // SAFETY: `env` and `exports` are those of the module's initialisation; the name is NUL-terminated and the function static.
        unsafe {
            sys::napi_create_function(
                env,
                name.as_ptr(),
                name.count_bytes() as isize,
                *function,
                ptr::null_mut(),
                &raw mut value,
            );
            sys::napi_set_named_property(env, exports, name.as_ptr(), value);
        }
    }
}

/// The running call: conversions between JavaScript and Rust.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    pub(crate) env: Env,
}

// The values below all come from the running call, so that the environment is current and the handles are alive.
impl Scope {
    fn throw(self, thrown: &Thrown) {
        let (mut code, mut message, mut error) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let mut pending = false;
        // SAFETY: strings are passed with their lengths; a pending exception is left as it is.
        unsafe {
            sys::napi_is_exception_pending(self.env, &raw mut pending);
            if pending {
                return;
            }
            sys::napi_create_string_utf8(
                self.env,
                thrown.code.as_ptr().cast(),
                thrown.code.len() as isize,
                &raw mut code,
            );
            sys::napi_create_string_utf8(
                self.env,
                thrown.message.as_ptr().cast(),
                thrown.message.len() as isize,
                &raw mut message,
            );
            sys::napi_create_error(self.env, code, message, &raw mut error);
            sys::napi_throw(self.env, error);
        }
    }

    pub(crate) fn undefined(self) -> Value {
        let mut value = ptr::null_mut();
        // SAFETY: as above.
        unsafe { sys::napi_get_undefined(self.env, &raw mut value) };
        value
    }

    pub(crate) fn null(self) -> Value {
        let mut value = ptr::null_mut();
        // SAFETY: as above.
        unsafe { sys::napi_get_null(self.env, &raw mut value) };
        value
    }

    pub(crate) fn number(self, number: f64) -> Value {
        let mut value = ptr::null_mut();
        // SAFETY: as above.
        unsafe { sys::napi_create_double(self.env, number, &raw mut value) };
        value
    }

    pub(crate) fn u32(self, number: u32) -> Value {
        let mut value = ptr::null_mut();
        // SAFETY: as above.
        unsafe { sys::napi_create_uint32(self.env, number, &raw mut value) };
        value
    }

    pub(crate) fn bool(self, flag: bool) -> Value {
        let mut value = ptr::null_mut();
        // SAFETY: as above.
        unsafe { sys::napi_get_boolean(self.env, flag, &raw mut value) };
        value
    }

    pub(crate) fn string(self, text: &str) -> Value {
        let mut value = ptr::null_mut();
        // SAFETY: the text is passed with its length.
        unsafe { sys::napi_create_string_utf8(self.env, text.as_ptr().cast(), text.len() as isize, &raw mut value) };
        value
    }

    pub(crate) fn object(self) -> Value {
        let mut value = ptr::null_mut();
        // SAFETY: as above.
        unsafe { sys::napi_create_object(self.env, &raw mut value) };
        value
    }

    pub(crate) fn set(self, object: Value, name: &CStr, value: Value) {
        // SAFETY: the name is NUL-terminated.
        unsafe { sys::napi_set_named_property(self.env, object, name.as_ptr(), value) };
    }

    pub(crate) fn array(self, values: impl ExactSizeIterator<Item = Value>) -> Value {
        let mut array = ptr::null_mut();
        // SAFETY: as above.
        unsafe { sys::napi_create_array_with_length(self.env, values.len(), &raw mut array) };
        for (index, value) in values.enumerate() {
            // SAFETY: as above.
            unsafe { sys::napi_set_element(self.env, array, index as u32, value) };
        }
        array
    }

    /// A new `Uint8Array` with a copy of `bytes`.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Value {
        let (buffer, mut array) = (self.array_buffer(bytes), ptr::null_mut());
        // SAFETY: the buffer is `bytes.len()` long.
        unsafe {
            sys::napi_create_typedarray(
                self.env,
                sys::TypedarrayType::uint8_array,
                bytes.len(),
                buffer,
                0,
                &raw mut array,
            )
        };
        array
    }

    /// A new `ArrayBuffer` with a copy of `bytes`.
    pub(crate) fn array_buffer(self, bytes: &[u8]) -> Value {
        let (mut data, mut buffer): (*mut c_void, _) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the engine gives `bytes.len()` fresh bytes, or null for none of them.
        unsafe {
            sys::napi_create_arraybuffer(self.env, bytes.len(), &raw mut data, &raw mut buffer);
            if !data.is_null() {
                ptr::copy_nonoverlapping(bytes.as_ptr(), data.cast(), bytes.len());
            }
        }
        buffer
    }

    /// Numbers, as a typed array when they are many: one copy instead of a call for each.
    pub(crate) fn numbers(self, numbers: &[u32]) -> Value {
        if numbers.len() < MANY_NUMBERS {
            return self.array(numbers.iter().map(|number| self.u32(*number)));
        }
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        let (buffer, mut array) = (self.array_buffer(&bytes), ptr::null_mut());
        // SAFETY: the buffer is four bytes long for each number.
        unsafe {
            sys::napi_create_typedarray(
                self.env,
                sys::TypedarrayType::uint32_array,
                numbers.len(),
                buffer,
                0,
                &raw mut array,
            )
        };
        array
    }

    pub(crate) fn get_u32(self, value: Value) -> Result<u32, Thrown> {
        let mut number = 0;
        // SAFETY: as above; the status tells of a wrong type.
        match unsafe { sys::napi_get_value_uint32(self.env, value, &raw mut number) } {
            sys::Status::napi_ok => Ok(number),
            _ => Err(Thrown::argument("a whole number")),
        }
    }

    pub(crate) fn get_f64(self, value: Value) -> Result<f64, Thrown> {
        let mut number = 0.0;
        // SAFETY: as above; the status tells of a wrong type.
        match unsafe { sys::napi_get_value_double(self.env, value, &raw mut number) } {
            sys::Status::napi_ok => Ok(number),
            _ => Err(Thrown::argument("a number")),
        }
    }

    pub(crate) fn get_bool(self, value: Value) -> Result<bool, Thrown> {
        let mut flag = false;
        // SAFETY: as above; the status tells of a wrong type.
        match unsafe { sys::napi_get_value_bool(self.env, value, &raw mut flag) } {
            sys::Status::napi_ok => Ok(flag),
            _ => Err(Thrown::argument("a boolean")),
        }
    }

    pub(crate) fn get_string(self, value: Value) -> Result<String, Thrown> {
        let mut length = 0;
        // SAFETY: a null buffer asks for the length; the second call gets room for it and the terminating NUL.
        unsafe {
            if sys::napi_get_value_string_utf8(self.env, value, ptr::null_mut(), 0, &raw mut length)
                != sys::Status::napi_ok
            {
                return Err(Thrown::argument("a string"));
            }
            let mut bytes = vec![0_u8; length + 1];
            sys::napi_get_value_string_utf8(self.env, value, bytes.as_mut_ptr().cast(), bytes.len(), &raw mut length);
            bytes.truncate(length);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
    }

    fn length(self, array: Value) -> Result<u32, Thrown> {
        let mut length = 0;
        // SAFETY: as above; the status tells of a wrong type.
        match unsafe { sys::napi_get_array_length(self.env, array, &raw mut length) } {
            sys::Status::napi_ok => Ok(length),
            _ => Err(Thrown::argument("an array")),
        }
    }

    /// The elements of an array.
    pub(crate) fn elements(self, array: Value) -> Result<Vec<Value>, Thrown> {
        let length = self.length(array)?;
        let element = |index| {
            let mut value = ptr::null_mut();
            // SAFETY: as above.
            unsafe { sys::napi_get_element(self.env, array, index, &raw mut value) };
            value
        };
        Ok((0..length).map(element).collect())
    }

    /// An array of small whole numbers; a `Uint32Array` where there are many.
    pub(crate) fn handles(self, array: Value) -> Result<Vec<u32>, Thrown> {
        // SAFETY: the bytes are copied at once.
        if let Ok(bytes) = unsafe { self.view(array) } {
            let (words, _) = bytes.as_chunks::<4>();
            return Ok(words.iter().map(|word| u32::from_ne_bytes(*word)).collect());
        }
        self.elements(array)?.into_iter().map(|value| self.get_u32(value)).collect()
    }

    /// The bytes of a typed array, `DataView` or Node `Buffer`.
    ///
    /// # Safety
    /// No JavaScript may run, and the memory may not be detached or written, while the slice is used.
    pub(crate) unsafe fn view<'a>(self, value: Value) -> Result<&'a [u8], Thrown> {
        let (mut data, mut length, mut is_typed): (*mut c_void, usize, bool) = (ptr::null_mut(), 0, false);
        // SAFETY: the status of each call says whether the out-parameters were written.
        let status = unsafe {
            sys::napi_is_typedarray(self.env, value, &raw mut is_typed);
            if is_typed {
                let mut kind = 0;
                let status = sys::napi_get_typedarray_info(
                    self.env,
                    value,
                    &raw mut kind,
                    &raw mut length,
                    &raw mut data,
                    ptr::null_mut(),
                    ptr::null_mut(),
                );
                length *= element_size(kind);
                status
            } else {
                sys::napi_get_dataview_info(
                    self.env,
                    value,
                    &raw mut length,
                    &raw mut data,
                    ptr::null_mut(),
                    ptr::null_mut(),
                )
            }
        };
        match status {
            sys::Status::napi_ok if length == 0 || data.is_null() => Ok(&[]),
            // SAFETY: the engine says that `length` bytes are there; the caller keeps them as they are.
            sys::Status::napi_ok => Ok(unsafe { std::slice::from_raw_parts(data.cast(), length) }),
            _ => Err(Thrown::argument("a view of an ArrayBuffer")),
        }
    }
}

/// Bytes of an element, by the kinds of `napi_typedarray_type`.
fn element_size(kind: i32) -> usize {
    match kind {
        sys::TypedarrayType::int16_array | sys::TypedarrayType::uint16_array | FLOAT16_ARRAY => 2,
        sys::TypedarrayType::int32_array | sys::TypedarrayType::uint32_array | sys::TypedarrayType::float32_array => 4,
        sys::TypedarrayType::float64_array
        | sys::TypedarrayType::bigint64_array
        | sys::TypedarrayType::biguint64_array => 8,
        _ => 1,
    }
}

/// `napi_float16_array`, which Node has since 24.
const FLOAT16_ARRAY: i32 = 11;
/// From so many numbers on a typed array costs less than an array.
const MANY_NUMBERS: usize = 16;
