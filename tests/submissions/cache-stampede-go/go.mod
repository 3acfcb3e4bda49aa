module pricing

go 1.22
