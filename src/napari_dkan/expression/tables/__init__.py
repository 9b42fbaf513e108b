"""Tables of counts, spots and patients: delimited text, Excel and Parquet files."""
