from tests.database.test_row_security import *
