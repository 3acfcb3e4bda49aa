module search

go 1.22
