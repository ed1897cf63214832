//! Arrow's types as PostgreSQL's.

use arrow_schema::{DataType, Field};

/// The key of a field's metadata that names its PostgreSQL type, where Arrow's says too little (`oid`, `name`, `"char"`).
pub const TYPE_KEY: &str = "postgres.type";

/// A type of PostgreSQL that values are sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgType {
    /// Its object id.
    pub oid: u32,
    /// Its name in `pg_type`.
    pub name: &'static str,
    /// Its name in SQL.
    pub sql_name: &'static str,
    /// Bytes of a value; -1 where they vary.
    pub size: i16,
    /// The object id of arrays of it; 0 where there is none.
    pub array_oid: u32,
    /// The category letter of `pg_type.typcategory`.
    pub category: &'static str,
}

macro_rules! types {
    ($($id:ident: $oid:literal $name:literal $sql:literal $size:literal $array:literal $category:literal;)*) => {
        $(#[doc = concat!("`", $sql, "`.")]
        pub const $id: PgType = PgType {
            oid: $oid, name: $name, sql_name: $sql, size: $size, array_oid: $array, category: $category,
        };)*
        /// Every type that is not an array.
        pub const SCALARS: &[PgType] = &[$($id),*];
    };
}

types! {
    BOOL: 16 "bool" "boolean" 1 1000 "B";
    BYTEA: 17 "bytea" "bytea" -1 1001 "U";
    CHAR: 18 "char" "\"char\"" 1 1002 "Z";
    NAME: 19 "name" "name" 64 1003 "S";
    INT8: 20 "int8" "bigint" 8 1016 "N";
    INT2: 21 "int2" "smallint" 2 1005 "N";
    INT4: 23 "int4" "integer" 4 1007 "N";
    REGPROC: 24 "regproc" "regproc" 4 1008 "N";
    TEXT: 25 "text" "text" -1 1009 "S";
    OID: 26 "oid" "oid" 4 1028 "N";
    JSON: 114 "json" "json" -1 199 "U";
    FLOAT4: 700 "float4" "real" 4 1021 "N";
    FLOAT8: 701 "float8" "double precision" 8 1022 "N";
    UNKNOWN: 705 "unknown" "unknown" -2 0 "X";
    BPCHAR: 1042 "bpchar" "character" -1 1014 "S";
    VARCHAR: 1043 "varchar" "character varying" -1 1015 "S";
    DATE: 1082 "date" "date" 4 1182 "D";
    TIME: 1083 "time" "time without time zone" 8 1183 "D";
    TIMESTAMP: 1114 "timestamp" "timestamp without time zone" 8 1115 "D";
    TIMESTAMPTZ: 1184 "timestamptz" "timestamp with time zone" 8 1185 "D";
    INTERVAL: 1186 "interval" "interval" 16 1187 "T";
    NUMERIC: 1700 "numeric" "numeric" -1 1231 "N";
    UUID: 2950 "uuid" "uuid" 16 2951 "U";
    JSONB: 3802 "jsonb" "jsonb" -1 3807 "U";
}

/// A type of a column: a scalar, or an array of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// The scalar, or the elements'.
    pub scalar: PgType,
    /// Whether it is an array.
    pub array: bool,
}

impl ColumnType {
    /// The type's object id.
    pub fn oid(&self) -> u32 {
        if self.array { self.scalar.array_oid } else { self.scalar.oid }
    }

    /// Bytes of a value; -1 where they vary.
    pub fn size(&self) -> i16 {
        if self.array { -1 } else { self.scalar.size }
    }

    /// The type's name in SQL, as `format_type` gives it.
    pub fn sql_name(&self) -> String {
        format!("{}{}", self.scalar.sql_name, if self.array { "[]" } else { "" })
    }

    /// The type of an object id.
    pub fn from_oid(oid: u32) -> Option<Self> {
        SCALARS.iter().find_map(|t| {
            if t.oid == oid {
                Some(Self { scalar: *t, array: false })
            } else if t.array_oid == oid && oid != 0 {
                Some(Self { scalar: *t, array: true })
            } else {
                None
            }
        })
    }

    /// The type of a name in SQL or in `pg_type`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        let (name, array) = match name.strip_suffix("[]") {
            Some(element) => (element.trim_end().to_owned(), true),
            None => (name, false),
        };
        let name = match name.as_str() {
            "int" => "int4",
            "double" | "float" => "float8",
            "string" => "text",
            "decimal" => "numeric",
            other => other,
        };
        SCALARS.iter().find(|t| t.name == name || t.sql_name == name).map(|t| Self { scalar: *t, array })
    }

    /// The type that values of a field are sent as.
    pub fn of(field: &Field) -> Self {
        let named = field.metadata().get(TYPE_KEY).and_then(|n| Self::from_name(n));
        named.unwrap_or_else(|| Self::of_data_type(field.data_type()))
    }

    /// The type that values of an Arrow type are sent as: what has none of its own goes as `jsonb`.
    pub fn of_data_type(data_type: &DataType) -> Self {
        use DataType as D;
        let scalar = match data_type {
            D::Boolean => BOOL,
            D::Int8 | D::UInt8 | D::Int16 => INT2,
            D::UInt16 | D::Int32 => INT4,
            D::UInt32 | D::Int64 | D::UInt64 => INT8,
            D::Float16 | D::Float32 => FLOAT4,
            D::Float64 => FLOAT8,
            D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => NUMERIC,
            D::Date32 | D::Date64 => DATE,
            D::Time32(_) | D::Time64(_) => TIME,
            D::Timestamp(_, None) => TIMESTAMP,
            D::Timestamp(_, Some(_)) => TIMESTAMPTZ,
            D::Interval(_) | D::Duration(_) => INTERVAL,
            D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => BYTEA,
            D::Dictionary(_, value) => return Self::of_data_type(value),
            D::RunEndEncoded(_, values) => return Self::of_data_type(values.data_type()),
            D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) => {
                let element = Self::of(f);
                if !element.array && element.scalar != JSONB {
                    return Self { scalar: element.scalar, array: true };
                }
                JSONB
            }
            D::Map(..) | D::Struct(_) | D::Union(..) => JSONB,
            _ => TEXT,
        };
        Self { scalar, array: false }
    }
}
