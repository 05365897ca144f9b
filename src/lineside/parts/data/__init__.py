"""Reading labelled pictures: folders, tables, boxes, masks; parts and splits."""
