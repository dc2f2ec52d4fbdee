"""Reports: tables, pages, pictures, TensorBoard, differences."""
